"""When a job is asked after: many together no faster than AWS answers, and none left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from elias.adapters.backends.sagemaker.settings import SageMakerSettings

URGENT_S = 2.0
"""Between two tries of what cannot wait for its turn."""
WAITS_S = 10.0
"""Whoever has not come back for so long does not wait any more."""


class Pace:
    """Turns of all jobs of this process; who has waited longest comes first."""

    def __init__(self, settings: SageMakerSettings, seconds: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        """Whose turn has come and who got none, with the moment of its last try."""
        self._last = float("-inf")

    def every_s(self, running: int) -> float:
        """Between two questions after the same job."""
        by_calls = running * 60 / self._settings.calls_per_minute
        return max(self._settings.poll_every.total_seconds(), by_calls if running > 1 else 0.0)

    def may_ask(self, key: str, *, running: int, is_urgent: bool) -> bool:
        """Whether it is `key`'s turn; counts as asked then. What a person wants, such as a stop, is always in turn."""
        with self._lock:
            now, every_s = self._seconds(), self.every_s(running)
            if is_urgent and now - self._since(key) < min(URGENT_S, every_s):
                return False
            if not is_urgent:
                if now - self._since(key) < every_s:
                    return False
                self._waits[key] = now
                if now - self._last < min(60 / self._settings.calls_per_minute, every_s) or not self._is_first(
                    key, now
                ):
                    return False
            self._waits.pop(key, None)
            self._asked[key] = self._last = now
            return True

    def _is_first(self, key: str, now: float) -> bool:
        waiting = [other for other, seen in self._waits.items() if now - seen < WAITS_S]
        return all(self._since(key) <= self._since(other) for other in waiting)

    def _since(self, key: str) -> float:
        return self._asked.get(key, float("-inf"))
