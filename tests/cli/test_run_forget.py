"""`elias run forget` and `prune` on the real command line."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from elias.cli.shell import run_command
from elias.config.schema import Config
from elias.domain.run import Checkpoint, Run, RunState, SegmentState
from elias.testing.nouns import a_digest, a_run, a_segment
from elias.wiring.stores import open_stores

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def left(home: Path, name: str, state: RunState, ended_at: datetime = LONG_AGO) -> Run:
    """A run with one segment and a checkpoint of 3 KiB."""
    end = Checkpoint(step=5, digest=a_digest(name), path="segments/0001/out/checkpoint/step-00000005")
    run = replace(a_run(name), state=state, strategy="local")
    segment = replace(
        a_segment(run.id), number=1, backend="local", state=SegmentState.PAUSED, end=end, handle=None, ended_at=ended_at
    )
    with open_stores(Config(home=home)) as stores:
        stores.runs.add(run)
        stores.runs.put_segment(segment)
    folder = home / "runs" / run.id / end.path
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(b"x" * 3072)
    return run


def elias(line: str) -> int:
    words = line.split()
    return run_command("elias", words[0], words[0], words[1:])


def files(home: Path, run: Run) -> list[Path]:
    return list((home / "runs" / run.id).rglob("*.safetensors"))


def test_prune_lists_first_and_removes_only_what_is_over_and_old(home: Path, capsys) -> None:
    cancelled = left(home, "cancelled", RunState.CANCELLED)
    fresh = left(home, "fresh", RunState.CANCELLED, datetime.now(UTC) - timedelta(days=1))
    failed = left(home, "failed", RunState.FAILED)
    assert elias("run prune") == 0
    told = capsys.readouterr()
    assert cancelled.id in told.out and fresh.id not in told.out and "3.0 KiB would be removed" in told.err
    assert f"elias run forget {failed.id}" in told.out
    assert all(files(home, run) for run in (cancelled, fresh, failed)), "a list removes nothing"
    assert elias("run prune --yes --json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["removed"] is True and answer["bytes"] == 3072
    assert [found["run"] for found in answer["runs"]] == [cancelled.id]
    assert not files(home, cancelled) and files(home, fresh) and files(home, failed)
    assert elias("run prune --older 12h --yes") == 0
    assert not files(home, fresh) and files(home, failed)


def test_forget_asks_before_it_takes_a_run_the_way_back(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    failed = left(home, "failed", RunState.FAILED)
    assert elias(f"run forget {failed.id}") == 2
    assert "add --yes" in capsys.readouterr().err and files(home, failed)
    assert elias(f"run forget {failed.id} --yes") == 0
    assert "3.0 KiB of checkpoints removed" in capsys.readouterr().out
    assert not files(home, failed)
    assert elias(f"run resume {failed.id}") == 4
    assert "cancelled" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "keeps"), [(RunState.FAILED, True), (RunState.DONE, False)])
def test_show_says_what_a_failed_run_leaves_on_a_place_and_how_to_remove_it(
    state: RunState, keeps: bool, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "none")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home))
    run = replace(a_run("away"), state=state, strategy="kaggle")
    segment = replace(a_segment(run.id), number=1, backend="kaggle", state=SegmentState.FAILED, handle="away-0001")
    with open_stores(Config(home=home)) as stores:
        stores.runs.add(run)
        stores.runs.put_segment(segment)
    assert elias(f"run show {run.id}") == 0
    line = f"what it left on kaggle is kept to go on from; to remove it: elias run forget {run.id}"
    assert (line in capsys.readouterr().out) == keeps
