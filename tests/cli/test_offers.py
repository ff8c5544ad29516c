"""`elias offers` as it is typed: every installed place in the list, ready or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE_S = "600"
"""A place may take to answer: more than boto3 takes to be imported on a busy machine."""


@pytest.fixture
def elias(tmp_path: Path):
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("KAGGLE_", "AWS_"))}
    env = bare | {"ELIAS_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    return run


def test_a_fresh_machine_sees_itself_and_what_the_other_places_lack(elias) -> None:
    answer = elias("offers", "--base", "starter", "--steps", "100", "--timeout", PATIENCE_S, "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    places = {place["backend"]: place for place in told["places"]}
    assert {"local", "kaggle", "sagemaker"} <= places.keys()
    assert places["local"]["ready"]
    (offer,) = places["local"]["offers"]
    assert offer["takes"] == "secret"
    assert offer["step_seconds"]["low"] < offer["step_seconds"]["likely"] < offer["step_seconds"]["high"]
    assert offer["seconds"]["likely"] > 100 * offer["step_seconds"]["likely"]
    assert offer["cost"] == 0
    for name in ("kaggle", "sagemaker"):
        assert not places[name]["ready"]
        assert places[name]["needs"]
        assert places[name]["fix"]
    shown = elias("offers", "--base", "starter", "--steps", "100", "--timeout", PATIENCE_S).stdout
    assert "not kaggle: " in shown
    assert "not sagemaker: " in shown
    assert "assumed" in shown


def test_a_corpus_that_is_not_there_is_said_to_be_missing(elias) -> None:
    answer = elias("offers", "--base", "starter", "--corpus", "abc")
    assert answer.returncode == 3
