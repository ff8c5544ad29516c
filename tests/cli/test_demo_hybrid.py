"""elias demo hybrid: one run from this machine to Kaggle, SageMaker and home; every line says that it is emulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elias.cli.shell import run_command


@pytest.mark.slow
def test_one_run_is_handed_from_place_to_place_and_comes_home_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_command("elias", "demo", "demo", ["hybrid", "--json", "--home", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"emulated": True, "kernels_run": 1, "jobs_run": 2}
    lines = told.err.splitlines()
    assert lines and all(line.startswith("emulated | ") for line in lines)
    shown = [line.removeprefix("emulated | ").split() for line in lines]
    segments = [words for words in shown if len(words) > 3 and words[0] in "123" and words[-1].startswith("$")]
    assert [words[1] for words in segments] == ["sagemaker", "kaggle", "sagemaker"]
    assert any("is what it claims to be" in line for line in lines)
    planned, begun = (next(n for n, line in enumerate(lines) if word in line) for word in ("at most;", "segment 1:"))
    assert planned < begun, "what may be spent is said before it begins"
