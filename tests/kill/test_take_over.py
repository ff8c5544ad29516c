"""Two nodes with two homes on one PostgreSQL: what the first leaves when it is lost, the second ends."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from elias.testing.postgres import fresh_database, postgres_server

SHELL = Path(__file__).parents[2] / "bench" / "shell.py"
WORDS = "--strategy local --base tiny --steps 24 --segment-steps 12 --rank 4 --batch-size 2 --sequence-length 192 --yes"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as server:
        yield fresh_database(server)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("elias_bench_shell", SHELL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    module.Shell(home=tmp_path).kill_all()


@pytest.mark.slow
def test_a_node_ends_the_run_of_one_that_is_lost_with_its_disk_and_gives_the_same_adapter(
    postgres: str, tmp_path: Path, shell: ModuleType
) -> None:
    data = shell.some_code(tmp_path / "session.py", functions=30)
    alone = shell.Shell(home=tmp_path / "alone")
    environment = {"ELIAS_STORE_URL": postgres, "ELIAS_EVALUATORS": "heldout_loss"}
    ann, bob, eve = (
        shell.Shell(home=tmp_path / name, environment={**environment, "ELIAS_NODE_NAME": name})
        for name in ("ann", "bob", "eve")
    )
    for node in (alone, ann, bob, eve):
        node.answer("init")
    wanted = alone.answer("train", "--data", str(data), *WORDS.split())

    child = ann.start("train", "--data", str(data), *WORDS.split(), "--json")
    segments = ann.home / "backends" / "local" / "segments"
    shell.until(lambda: len(list(segments.glob("*/who.json"))) == 2, "the second segment")
    os.kill(json.loads((max(segments.iterdir()) / "who.json").read_bytes())["pid"], signal.SIGSTOP)
    code, _, refused = bob.run("run", "resume", "latest", "--take-over")
    assert code == 4 and "ann" in refused, "it lives"
    child.kill()
    ann.kill_all()
    child.communicate()
    shutil.rmtree(ann.home)

    ended = bob.answer("run", "resume", "latest", "--take-over")
    assert ended["artifact"] == wanted["artifact"]
    assert ended["node"] == "bob"
    assert [s["state"] for s in ended["segments"]] == ["paused", "failed", "done"]
    assert ended["segments"][2]["start"] == ended["segments"][0]["end"]
    assert ended["corpus"] == wanted["corpus"]

    assert bob.answer("model", "judge", "latest", allowed=(0, 4))["candidate"] == wanted["artifact"]
    code, _, refused = eve.run("model", "verify", "latest")
    assert code != 0 and "does not trust" in refused, "whatever store it lies in"
    shutil.copy(bob.home / "identity" / "public" / "node.pub", eve.home / "identity" / "trusted" / "bob.pub")
    shutil.rmtree(bob.home)
    assert eve.answer("model", "verify", "latest")["digest"] == wanted["artifact"]
    assert (eve.home / "artifacts" / "sha256" / wanted["artifact"].removeprefix("sha256:") / "adapter").is_dir()
