"""What an evaluation lays out does not outlive it, also when it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elias.adapters.evaluators import scratch
from elias.adapters.evaluators.scratch import FRESH_S, scratch_folder

HOLD = """
import sys, time
from pathlib import Path
from elias.adapters.evaluators.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "score-") as folder:
    (folder / "heldout.jsonl").write_text("private")
    print(folder, flush=True)
    time.sleep(600)
"""


def hold(cache: Path) -> tuple[subprocess.Popen[str], Path]:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(cache)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def age(folder: Path) -> None:
    then = folder.stat().st_mtime - 2 * FRESH_S
    os.utime(folder, (then, then))


def test_what_a_killed_one_left_is_removed_at_the_next_start_and_what_another_uses_stays(tmp_path: Path) -> None:
    killed, left = hold(tmp_path)
    living, used = hold(tmp_path)
    with killed, living:
        killed.kill()
        killed.wait()
        assert (left / "heldout.jsonl").exists()
        for folder in (left, used):
            age(folder)
        (tmp_path / "bases").mkdir()
        with scratch_folder(tmp_path, "score-") as mine:
            assert not left.exists()
            assert (used / "heldout.jsonl").exists() and mine.exists() and (tmp_path / "bases").exists()
        assert not mine.exists()
        living.kill()


def test_one_that_was_made_just_now_may_not_be_locked_yet_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "FRESH_S", 3600.0)
    (tmp_path / "score-fresh").mkdir()
    with scratch_folder(tmp_path, "score-"):
        assert (tmp_path / "score-fresh").exists()
