"""A run killed with -9 three times and resumed gives the artifact of the run left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "three_kills.py"


@pytest.mark.slow
def test_a_run_killed_three_times_and_resumed_gives_the_artifact_of_the_run_left_alone():
    ran = subprocess.run([sys.executable, BENCH, "--base", "tiny"], capture_output=True, text=True, check=False)
    assert ran.stdout, ran.stderr
    report = json.loads(ran.stdout)
    assert report["wrong"] == []
    assert report["killed"] == report["alone"]
    assert [(kill["victim"], kill["landed"]) for kill in report["kills"]] == [
        ("trainer", True),
        ("coordinator", True),
        ("both", True),
    ]
    assert all(0 < kill["checkpoint"] <= kill["at_step"] < report["steps"] for kill in report["kills"])
