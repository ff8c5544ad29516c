"""Everything of `make demo` that is not training, by phase, beside the training itself: a JSON line a phase.

Runs the demo for real, with few steps; its own output goes to stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo" / "main_job.py"
STEPS = 4


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phases.json"
        command = [sys.executable, str(DEMO), "--steps", str(STEPS), "--phases", str(file)]
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if code:
            return code
        seconds = json.loads(file.read_text())
    train = seconds.pop("train")
    for name, spent in seconds.items():
        line = {"bench": "demo.phase", "phase": name, "seconds": spent, "train_seconds": train, "steps": STEPS}
        print(json.dumps(line | {"ratio": round(spent / train, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
