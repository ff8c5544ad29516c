"""A thread of the node that looks at something again and again, until the node ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from elias.errors import EliasError

log = logging.getLogger("elias.watching")


class Watching:
    """`look` is called every `every`, at once when started; neither trouble nor a bug in it ends the thread."""

    def __init__(self, name: str, look: Callable[[], object], every: timedelta, ends_within_s: float = 1) -> None:
        self._look = look
        self._every_s, self._ends_within_s = every.total_seconds(), ends_within_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Within a moment, unless it is just looking: then the thread ends with that."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._ends_within_s)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._look()
            except EliasError as error:
                log.warning("%s.failed what=%s", self._thread.name, error.what)
            except Exception:  # what a bug in one look must not end
                log.exception("%s.bug", self._thread.name)
            self._ending.wait(self._every_s)
