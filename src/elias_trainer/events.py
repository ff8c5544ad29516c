"""What the trainer says while it works: a line in events.jsonl, and the same line on stdout behind EVENT_PREFIX."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elias_trainer.contract import EVENT_PREFIX, EventKind, canonical_json


class Events:
    """Appends events; `seq` goes on where an earlier start in the same folder left off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seq = _mend(path)

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """One write a line, so that lines of two writers to one log never mix."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = canonical_json({"seq": self._seq, "at": at, "kind": kind.value, **fields}) + b"\n"
        with self._path.open("ab") as stream:
            stream.write(line)
        self._seq += 1
        _print(EVENT_PREFIX.encode() + line)

    def warn(self, message: str) -> None:
        self.emit(EventKind.WARNING, message=message)


class Silence(Events):
    """For every process of a group but the first."""

    def __init__(self) -> None:
        pass

    def emit(self, kind: EventKind, **fields: Any) -> None:
        pass


def _print(line: bytes) -> None:
    sys.stdout.flush()
    try:
        os.write(sys.stdout.fileno(), line)
    except BrokenPipeError:
        # whoever read the log is gone; the file still has every event, and the work is not theirs to end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _mend(path: Path) -> int:
    """Cut off a last line that a power cut tore; the next `seq`."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    lines = whole.splitlines()
    return int(json.loads(lines[-1])["seq"]) + 1 if lines else 0
