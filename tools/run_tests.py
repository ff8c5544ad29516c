"""All tests, side by side. At most two that fail are run once more, alone, and named at the end.

    python tools/run_tests.py [WORKERS] [pytest's own words]

A test that fails beside others and passes alone is still a defect, of the test or of the code: both of its outcomes are
printed. It does not refuse a change that has nothing to do with it (docs/decisions/020). Never looked over: what is
killed at random moments, and what holds money (`NO_SECOND_LOOK`). There one failure in a hundred is the finding.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 2
"""More than that have one cause, which is not chance."""
NO_SECOND_LOOK = ("kill", "spend", "budget", "places_node", "tampering")
"""In the path of a test's file."""
FAILED = Path(".pytest_cache/v/cache/lastfailed")
SOME_FAILED = 1
"""pytest's exit code; the others say that it did not come to an end."""


def main(workers: str = "2", *words: str) -> int:
    FAILED.unlink(missing_ok=True)
    beside = ("--numprocesses", workers, "--dist", "loadfile", "--no-loadscope-reorder")
    code = pytest(*beside, *words)
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if code != SOME_FAILED or not may_be_looked_at_again(failed):
        return code
    print(f"\nonce more, alone: {', '.join(failed)}", flush=True)
    code = pytest("-p", "no:xdist", *failed)
    told = "failed both times" if code else "UNSTEADY: failed beside others and passed alone; it wants to be mended"
    print("\n".join(f"{told}: {name}" for name in failed))
    return code


def may_be_looked_at_again(failed: list[str]) -> bool:
    files = [name.split("::")[0] for name in failed if "::" in name]  # one that could not be read has no tests
    are_few = 0 < len(files) == len(failed) <= MOST
    return are_few and not any(word in file for file in files for word in NO_SECOND_LOOK)


def pytest(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
