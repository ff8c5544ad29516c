"""The log of a session under way, read as it comes by a thread of its own: Kaggle sends it from the beginning each
time it is asked, so it is asked as seldom as the connection allows, and each line is looked at once."""

from __future__ import annotations

import json
import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from elias.adapters.backends.printed import json_after
from elias.errors import EliasError
from elias_trainer.contract import EVENT_PREFIX
from elias_trainer.parcel import NOTE_PREFIX

log = logging.getLogger("elias.kaggle")

MOST_CUTS = 10
"""Connections in a row that brought nothing new; then the thread ends, and the next look begins another."""


class LiveLog:
    def __init__(self, lines: Callable[[], Iterable[str]], wait_s: float) -> None:
        """`lines` opens the log anew and yields it from its beginning; raises EliasError when it is cut off."""
        self._open = lines
        self._wait_s = wait_s
        self._count = 0
        """Lines read so far."""
        self._numbers: list[int] = []
        self._events: list[str] = []
        self._notes: list[Mapping[str, Any]] = []
        self._rest: list[str] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._cuts = 0
        self.has_ended = False
        """The log was closed without an error: the session is over, or the way there is closed now and then."""
        self.notes_done = 0
        """How many of `notes` were acted on, for whoever acts on them."""

    @property
    def is_live(self) -> bool:
        """Whether a connection is open: an end of the session will show."""
        return self._thread is not None and self._thread.is_alive() and self._cuts == 0

    def watch(self) -> None:
        """Go on reading; at once."""
        if not ((self._thread is not None and self._thread.is_alive()) or self._stop.is_set()):
            self._thread = threading.Thread(target=self._read, name="kaggle-log", daemon=True)
            self._thread.start()

    def events(self, after: int) -> Iterator[Mapping[str, Any]]:
        """The trainer's events with a higher `seq` read so far, each once and in order."""
        for text in self._events[bisect_right(self._numbers, after) :]:
            yield json.loads(text)

    @property
    def notes(self) -> list[Mapping[str, Any]]:
        """What the job has said about its machine."""
        return list(self._notes)

    @property
    def rest(self) -> list[str]:
        """What was printed beside events and notes."""
        return list(self._rest)

    def stop(self) -> None:
        """Nobody waits for it: it ends with the connection."""
        self._stop.set()

    def _read(self) -> None:
        self._cuts = 0
        while self._cuts < MOST_CUTS:
            known = self._count
            try:
                self._read_once()
            except EliasError as cut:
                log.debug("kaggle.log_cut what=%s", cut.what)
            self._cuts = 0 if self._count > known else self._cuts + 1
            if self._stop.wait(self._wait_s * 2 ** min(self._cuts, 6)):
                return

    def _read_once(self) -> None:
        for number, line in enumerate(self._open(), start=1):
            if self._stop.is_set():
                return
            if number > self._count:
                self.has_ended = False  # before what the line says is shown to anybody
                self._take(line)
                self._count, self._cuts = number, 0
        self.has_ended = True  # a proxy's limit looks the same: it is read on until somebody knows better

    def _take(self, line: str) -> None:
        """Only this thread writes, and always the text before its number: a reader never sees one without the other."""
        if line.startswith(EVENT_PREFIX):
            event = json_after(EVENT_PREFIX, line)
            if event is not None and int(event.get("seq", -1)) > (self._numbers[-1] if self._numbers else -1):
                self._events.append(line.removeprefix(EVENT_PREFIX))
                self._numbers.append(int(event["seq"]))
        elif line.startswith(NOTE_PREFIX):
            if (note := json_after(NOTE_PREFIX, line)) is not None:
                self._notes.append(note)
        else:
            self._rest.append(line)
