"""kill -9 of the coordinator at a request to AWS; `python bench/sagemaker_kills.py` takes every request of the run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KILLS = Path(__file__).parents[3] / "bench" / "sagemaker_kills.py"


def report_of(*arguments: str) -> Any:
    ran = subprocess.run([sys.executable, str(KILLS), *arguments], capture_output=True, text=True, timeout=600)
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_a_coordinator_killed_before_an_answer_loses_nothing_and_pays_nothing_twice() -> None:
    report = report_of("--requests", "26", "--moments", "reached")
    assert report["wrong"] == [] and report["killed"] == 1


@pytest.mark.slow
def test_a_coordinator_killed_around_a_request_loses_nothing_and_pays_nothing_twice() -> None:
    report = report_of("--requests", "22,25,41", "--moments", "unsent,answered")
    assert report["wrong"] == [] and report["killed"] == 6
