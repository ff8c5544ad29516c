"""Room 7. What the gateway has to do: how many requests are with it, and how long an answer takes to begin."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from elias.domain.hold import Demand

LATELY_S = 10.0
"""How long a slow answer is remembered."""


class DemandMeter:
    """Safe from any thread; `seconds` is a clock that only goes forward."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._waiting: dict[object, float] = {}
        """Requests without a first piece -> when they came."""
        self._answered: deque[tuple[float, float]] = deque()
        """When an answer began, and after how long."""
        self._depth = 0

    @contextmanager
    def request(self) -> Iterator[Callable[[], None]]:
        """From its coming to its end; call what it yields when the answer begins."""
        ticket = object()
        with self._lock:
            self._depth += 1
            self._waiting[ticket] = self._seconds()
        try:
            yield lambda: self._begun(ticket)
        finally:
            with self._lock:
                self._depth -= 1
                self._waiting.pop(ticket, None)

    def look(self) -> Demand:
        with self._lock:
            now = self._seconds()
            while self._answered and now - self._answered[0][0] > LATELY_S:
                self._answered.popleft()
            spans = [now - came for came in self._waiting.values()] + [took for _, took in self._answered]
            return Demand(depth=self._depth, slowest=timedelta(seconds=max(spans, default=0.0)))

    def _begun(self, ticket: object) -> None:
        with self._lock:
            came = self._waiting.pop(ticket, None)
            if came is not None:
                now = self._seconds()
                self._answered.append((now, now - came))
