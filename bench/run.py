"""`make bench`: every benchmark that runs on this machine, a JSON line for each comparison, both sides in one run.

python bench/run.py            all of them
python bench/run.py cli memory those alone
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    ("cli.py",),
    ("memory.py",),
    ("speed.py",),
    ("trainer.py", "--tiny"),
    ("trainer.py", "--starter"),
    ("phases.py",),
    ("kaggle_backend.py",),
    ("planner_latency.py",),
    ("cuda.py",),
)


def main() -> int:
    """The first exit code that is not zero; the others run all the same."""
    wanted = sys.argv[1:]
    if unknown := set(wanted) - {name.removesuffix(".py") for name, *_ in BENCHMARKS}:
        print(f"no benchmark is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    codes = [
        subprocess.run([sys.executable, str(HERE / name), *words], check=False).returncode
        for name, *words in BENCHMARKS
        if not wanted or name.removesuffix(".py") in wanted
    ]
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
