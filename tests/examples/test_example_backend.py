"""The example package of a backend, built and installed beside ELIAS, passes the contract suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "examples" / "elias-backend-subprocess"


def test_a_backend_in_a_package_of_its_own_passes_the_contract_with_no_change_to_the_core(tmp_path):
    site = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    options = {"capture_output": True, "text": True, "check": False}
    made = subprocess.run([sys.executable, "-m", "pip", *install, "--target", site, PACKAGE], **options)
    assert made.returncode == 0, made.stderr
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    tested = subprocess.run(command, cwd=PACKAGE, env=environment, **options)
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-1000:]
    assert "passed" in tested.stdout
