"""Kaggle's own command line, against the emulated Kaggle: what a person types."""

import os
import shlex
import subprocess
import sys
from pathlib import Path


def type_kaggle(command: str, url: str, scratch: Path) -> str:
    """What it prints. `scratch` keeps its half-done uploads apart from anybody's real ones."""
    environment = os.environ | {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "http_proxy": url,
        "no_proxy": "",
        "NO_PROXY": "",
        "TMPDIR": str(scratch),
    }
    words = shlex.split(command)
    assert words[0] == "kaggle"
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout
