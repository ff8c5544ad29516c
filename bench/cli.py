"""How long the command line takes to answer, beside a bare Python: JSON lines, each with both sides.

    python bench/cli.py [--rounds 11]

The sides take turns, so that a busy machine slows both; medians over the rounds. `status` is asked with no node up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ELIAS = str(Path(sys.executable).with_name("elias"))
UFF = str(Path(sys.executable).with_name("uff_cli"))
BARE = (sys.executable, "-c", "pass")
CASES = {
    "uff_cli --help": ((UFF, "--help"), 150),
    "elias status": ((ELIAS, "status"), 250),
    "elias session list": ((ELIAS, "session", "list"), None),
    "elias run list": ((ELIAS, "run", "list"), None),
}
"""Name -> the command, and how many milliseconds it may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="elias-bench-") as home:
        environment = {**os.environ, "ELIAS_HOME": home}
        subprocess.run(
            (ELIAS, "init"), env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for name, (command, wanted_ms) in CASES.items():
            print(json.dumps(compare(name, command, wanted_ms, environment, rounds)), flush=True)


def compare(
    name: str, command: tuple[str, ...], wanted_ms: int | None, environment: dict[str, str], rounds: int
) -> dict[str, object]:
    spent: dict[str, list[float]] = {"elias": [], "bare": []}
    for _ in range(rounds):
        for side, words in (("bare", BARE), ("elias", command)):
            spent[side].append(milliseconds(words, environment))
    ours, bare = statistics.median(spent["elias"]), statistics.median(spent["bare"])
    return {
        "bench": "cli",
        "case": name,
        "elias_ms": round(ours, 1),
        "python_pass_ms": round(bare, 1),
        "ratio": round(ours / bare, 2),
        "wanted_below_ms": wanted_ms,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def milliseconds(command: tuple[str, ...], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
