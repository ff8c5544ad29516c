"""The trainer's archive, which the node gives to whoever trains, without importing the trainer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from elias.errors import EngineError


def write_trainer_archive(path: Path) -> None:
    """In a process of its own: the node never imports the trainer. Raises EngineError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "elias_trainer", "archive", "--out", str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise EngineError(
            f"the trainer's archive could not be written: {made.stderr.strip()[-300:]}",
            fix="pip install --force-reinstall 'elias-node[node,train]'",
        )
