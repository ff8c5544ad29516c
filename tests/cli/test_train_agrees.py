"""Before a run may spend anything its whole plan is shown, on stderr, and agreed to."""

from __future__ import annotations

from pathlib import Path

import pytest

from elias.cli.asking import Asked, wanted_run
from elias.cli.shell import run_command
from elias.cli.train import _agree
from elias.config import load
from elias.wiring.train import open_training


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    code = "".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8))
    (tmp_path / "m.py").write_text(code)
    assert run_command("elias", "capture", "capture", ["code", str(tmp_path / "m.py")]) == 0
    assert run_command("elias", "corpus", "corpus", ["build"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(("budget", "said"), [("15usd", "spends $15.00 at most, which is its budget"), (None, "")])
def test_a_budget_that_a_free_plan_does_not_touch_is_named_all_the_same(
    budget: str | None, said: str, capsys: pytest.CaptureFixture[str]
):
    config = load()
    wanted = wanted_run(config, Asked(base="tiny", steps=20, budget=budget))
    with open_training(config) as training:
        found = training.stores.corpora.get("latest")
        _agree(training, wanted, found, training.plan(wanted, found), yes=False)
    told = capsys.readouterr()
    assert told.out == "", "what train answers on stdout is the run"
    assert said in told.err and ("local" in told.err) == bool(budget)
