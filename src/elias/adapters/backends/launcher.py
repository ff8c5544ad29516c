"""Starts one trainer that outlives whoever started it: `python -I launcher.py launch.json`.

Three processes: this one ends as soon as the trainer is launched; a supervisor waits for the trainer's end and writes
down how it ended; the trainer itself first writes down who it is, then becomes the trainer by exec, so that no trainer
ever runs unknown. All of them, and nobody else, hold the open slot file: its lock says that the machine is in use.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil

NOT_WANTED = 75


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_bytes())
    ready, launched = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        _supervise(order, launched)
    os.close(launched)
    os.read(ready, 1)  # ends when the trainer has begun, or nobody can begin it any more


def _supervise(order: dict[str, Any], launched: int) -> NoReturn:
    os.setsid()
    trainer = os.fork()
    if trainer == 0:
        _become_trainer(order)
    os.close(launched)  # the trainer's own copy closes at exec: now the launcher may go
    _, status = os.waitpid(trainer, 0)
    code = os.waitstatus_to_exitcode(status)
    _write(Path(order["exit"]), {"code": code, "at": time.time()})
    os._exit(0)


def _become_trainer(order: dict[str, Any]) -> NoReturn:
    os.setpgid(0, 0)
    born = psutil.Process().create_time()
    _write(Path(order["identity"]), {"pid": os.getpid(), "born": born, "at": time.time()})
    if Path(order["unwanted"]).exists():
        os._exit(NOT_WANTED)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.execve(order["command"][0], order["command"], order["environment"])


def _write(path: Path, value: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    with scratch.open("w") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


if __name__ == "__main__":
    main()
