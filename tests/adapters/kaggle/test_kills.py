"""kill -9 of the coordinator at a request to Kaggle; `python bench/kaggle_kills.py` takes every request of the run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[3] / "bench" / "kaggle_kills.py"


def report_of(*words: str) -> dict[str, object]:
    ran = subprocess.run([sys.executable, KILLS, *words], capture_output=True, text=True, check=False)
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


def test_a_coordinator_killed_before_an_answer_loses_nothing_and_repeats_nothing() -> None:
    report = report_of("--requests", "7,33", "--moments", "reached")
    assert report["wrong"] == [] and report["killed"] == 2


@pytest.mark.slow
def test_a_coordinator_killed_after_an_answer_loses_nothing_and_repeats_nothing() -> None:
    report = report_of("--requests", "1,9,17,25,41,49,57", "--moments", "answered")
    assert report["wrong"] == [] and report["killed"] == 7
