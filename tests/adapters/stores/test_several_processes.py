"""Two processes write at once: nothing is lost, nothing waits for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from elias.config.schema import Config, Store
from elias.testing.nouns import a_run
from elias.testing.postgres import emptied
from elias.testing.waiting import PATIENCE_S
from elias.wiring.stores import open_stores

ROUNDS = 60
WRITER = f"""
import sys
from pathlib import Path
from elias.adapters.stores import database
from elias.config.schema import Config, Store
from elias.domain.session import Evidence
from elias.testing.nouns import a_digest, a_session
from elias.units import FREE
from elias.wiring.stores import open_stores

database.BUSY_S = {PATIENCE_S}
home, url, me = Path(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3])
with open_stores(Config(home=home, store=Store(url=url))) as stores:
    for n in range({ROUNDS}):
        numbers = range(10) if me else reversed(range(10))
        evidence = (Evidence(kind=f"seen by {{me}}", passed=n, total={ROUNDS}),)
        stores.sessions.add(a_session(f"text {{m}}", evidence=evidence) for m in numbers)
        stores.runs.append_events("run-1-0001", ({{"seq": seq}} for seq in range(n * 5, n * 5 + 10)))
        stores.runs.update("run-1", **({{"reason": str(n)}} if me else {{"node": str(n)}}))
        stores.models.add_deployment("tiny", a_digest(f"{{me}} {{n}}"), "reference", "deploy")
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_write_of_either_is_lost(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    url = "" if kind == "sqlite" else emptied(request.getfixturevalue("postgres"))
    config = Config(home=tmp_path, store=Store(url=url or None))
    with open_stores(config) as stores:
        stores.runs.add(a_run())
    writers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, str(tmp_path), url, me]) for me in ("0", "1")
    ]
    assert [writer.wait(timeout=PATIENCE_S) for writer in writers] == [0, 0]
    with open_stores(config) as stores:
        run = stores.runs.get("run-1")
        assert (run.node, run.reason) == (str(ROUNDS - 1), str(ROUNDS - 1))
        sessions = list(stores.sessions.select())
        assert len(sessions) == 10
        seen = {(e.kind, e.passed) for session in sessions for e in session.evidence}
        assert seen == {("seen by 0", ROUNDS - 1), ("seen by 1", ROUNDS - 1)}
        assert len(stores.runs.events("run-1-0001")) == (ROUNDS - 1) * 5 + 10
        assert [d.id for d in stores.models.deployments()] == list(range(2 * ROUNDS, 0, -1))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_first_openings_at_once_make_one_schema(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    url = "" if kind == "sqlite" else emptied(request.getfixturevalue("postgres"))
    code = (
        "import sys; from pathlib import Path; from elias.config.schema import Config, Store; "
        "from elias.adapters.stores import database; from elias.wiring.stores import open_stores; "
        f"database.BUSY_S = {PATIENCE_S}; "
        "open_stores(Config(home=Path(sys.argv[1]), store=Store(url=sys.argv[2] or None))).close()"
    )
    openers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), url]) for _ in range(3)]
    assert [opener.wait(timeout=PATIENCE_S) for opener in openers] == [0, 0, 0]
