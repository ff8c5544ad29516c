"""The trainer as one file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from elias_trainer import archive
from elias_trainer.contract import Outcome, digest_file
from tests.trainer.conftest import Place

MakePlace = Callable[..., Place]


def test_the_same_sources_give_the_same_archive(tmp_path: Path) -> None:
    first = archive.build(tmp_path / "first.pyz")
    time.sleep(0.01)
    words = [sys.executable, "-m", "elias_trainer", "archive", "--out", str(tmp_path / "second.pyz")]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert first == printed == digest_file(tmp_path / "first.pyz") == digest_file(tmp_path / "second.pyz")


def test_an_archive_makes_itself_again(tmp_path: Path) -> None:
    first = archive.build(tmp_path / "first.pyz")
    words = [sys.executable, "-I", str(tmp_path / "first.pyz"), "archive", "--out", str(tmp_path / "again.pyz")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == first


def test_it_holds_sources_and_nothing_else(tmp_path: Path) -> None:
    archive.build(tmp_path / "trainer.pyz")
    with zipfile.ZipFile(tmp_path / "trainer.pyz") as made:
        names = made.namelist()
    assert names[0] == "__main__.py"
    assert names[1:] == sorted(names[1:])
    assert all(name.endswith(".py") for name in names)
    assert {"elias_trainer/contract.py", "elias_trainer/loop.py"} <= set(names)


def test_it_trains_as_the_sources_do(place: MakePlace) -> None:
    here, there = place("here", max_steps=2), place("there", max_steps=2)
    assert here.run() == 0
    pyz = there.root / "in" / "trainer.pyz"
    there = there.rewrite(trainer=archive.build(pyz))
    words = [sys.executable, "-I", str(pyz), *there.argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", env=os.environ)
    assert done.returncode == 0, done.stderr
    assert there.result.outcome is Outcome.DONE
    assert there.adapter() == here.adapter()


@pytest.mark.parametrize("verb", ["score", "serve"])
def test_other_verbs_are_passed_on(verb: str) -> None:
    words = [sys.executable, "-m", "elias_trainer", verb, "--help"]
    assert verb in subprocess.run(words, capture_output=True, text=True, check=True).stdout
