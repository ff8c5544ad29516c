"""The log of a session under way, read as it comes by a thread of its own: Kaggle sends it from the beginning each
time it is asked, so it is asked as seldom as the connection allows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from elias.errors import EliasError
from elias_trainer.contract import EVENT_PREFIX
from elias_trainer.parcel import NOTE_PREFIX

MOST_CUTS = 10
"""Connections in a row that brought nothing new; then the thread ends, and the next look begins another."""


class LiveLog:
    def __init__(self, lines: Callable[[], Iterable[str]], wait_s: float) -> None:
        """`lines` opens the log anew and yields it from its beginning; raises EliasError when it is cut off."""
        self._open = lines
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def lines(self) -> list[str]:
        """Those read so far; at once."""
        if self._thread is None or not (self._thread.is_alive() or self._stop.is_set()):
            self._thread = threading.Thread(target=self._read, name="kaggle-log", daemon=True)
            self._thread.start()
        with self._lock:
            return list(self._lines)

    def stop(self) -> None:
        """Nobody waits for it: it ends with the connection."""
        self._stop.set()

    def _read(self) -> None:
        cuts = 0
        while cuts < MOST_CUTS:
            known, number = len(self._lines), 0
            try:
                for number, line in enumerate(self._open(), start=1):
                    if self._stop.is_set():
                        return
                    if number > len(self._lines):
                        with self._lock:
                            self._lines.append(line)
                return
            except EliasError:
                cuts = 0 if number > known else cuts + 1
            if self._stop.wait(self._wait_s * 2 ** min(cuts, 6)):
                return


def events_in(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The trainer's events, each once and in order."""
    last = -1
    for line in lines:
        event = _json_after(EVENT_PREFIX, line)
        if event is not None and int(event.get("seq", -1)) > last:
            last = int(event["seq"])
            yield event


def notes_in(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """What the job says about its machine."""
    for line in lines:
        note = _json_after(NOTE_PREFIX, line)
        if note is not None:
            yield note


def other_lines(lines: Iterable[str]) -> Iterator[str]:
    """What was printed beside events and notes."""
    return (line for line in lines if not line.startswith((EVENT_PREFIX, NOTE_PREFIX)))


def _json_after(prefix: str, line: str) -> Mapping[str, Any] | None:
    if not line.startswith(prefix):
        return None
    try:
        found = json.loads(line.removeprefix(prefix))
    except ValueError:
        return None  # a line cut in two
    return found if isinstance(found, dict) else None
