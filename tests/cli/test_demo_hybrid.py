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
    assert json.loads(told.out) == {"emulated": True, "kernels_run": 1, "jobs_run": 1}
    lines = told.err.splitlines()
    assert lines and all(line.startswith("emulated | ") for line in lines)
    shown = [" ".join(line.split()) for line in lines]
    segments = [
        line.split(" | ")[1] for line in shown if line.split(" | ")[1].split(" ")[0] in "123" and "$" in line[-6:]
    ]
    assert [line.split(" ")[1] for line in segments[-3:]] == ["local", "kaggle", "sagemaker"]
    assert any("is what it claims to be" in line for line in shown)
    assert any("spends $15.00 at most" in line for line in shown), "what may be spent is said before it begins"
