"""A node's engine in a process of its own, for tests that kill it: HOME NODE URL STEPS.

While there is a file `hold-NODE` beside its home, that node goes no further than the beginning of step `HELD_AT`.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from elias.adapters.clock import SystemClock
from elias.adapters.engine.dbos_engine import DbosEngine, EngineSettings
from elias.errors import BackendError, EliasError
from elias.ports.durable import Steps

home, node, url, count = Path(sys.argv[1]), sys.argv[2], sys.argv[3] or None, int(sys.argv[4])
diary = home.parent / "diary"
hold = home.parent / f"hold-{node}"
HELD_AT = 3


def write(line: str) -> None:
    handle = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def do(key: str, number: int) -> int:
    write(f"{key} {number} {node}")
    time.sleep(0.02)
    while number == HELD_AT and hold.exists():
        time.sleep(0.02)
    if number % 5 == 4:
        raise BackendError(f"step {number} failed", fix="go on", kept=key)
    return number


def work(steps: Steps, key: str) -> None:
    for number in range(count):
        try:
            answer = steps.step(f"do {number}", do, key, number)
        except EliasError as error:
            answer = number if (error.what, error.kept) == (f"step {number} failed", key) else None
        if answer != number:
            write(f"{key} wrong {number}")
        if number % 3 == 2:
            steps.sleep(timedelta(seconds=0.15))
    steps.step("end", write, f"{key} end {node}")


engine = DbosEngine(EngineSettings(home=home, node=node, url=url, poll_s=0.05), SystemClock())
engine.register("work", work)
try:
    engine.launch()
except EliasError as error:
    print(type(error).__name__, error.what, "|", error.fix, flush=True)
    sys.exit(error.exit_code)
print("launched", flush=True)
for line in sys.stdin:
    verb, key = line.split()
    try:
        if verb == "adopt":
            engine.adopt(key)
        else:
            engine.start("work", key)
        print("ok", flush=True)
    except EliasError as error:
        print(type(error).__name__, error.what, flush=True)
engine.stop()
