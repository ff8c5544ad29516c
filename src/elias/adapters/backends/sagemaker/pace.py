"""When a job is asked after: many together no faster than AWS answers."""

from __future__ import annotations

import threading
import time

from elias.adapters.backends.sagemaker.settings import SageMakerSettings


class Pace:
    """Spreads the questions after many jobs, so that all together stay below what AWS throttles at."""

    def __init__(self, settings: SageMakerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._asked: dict[str, float] = {}
        self._last: float | None = None

    def every_s(self, running: int) -> float:
        """Between two questions after the same job."""
        by_calls = running * 60 / self._settings.calls_per_minute
        return max(self._settings.poll_every.total_seconds(), by_calls if running > 1 else 0.0)

    def may_ask(self, key: str, *, running: int, is_urgent: bool) -> bool:
        """Whether it is `key`'s turn; counts as asked then. What a person wants, such as a stop, is always in turn."""
        with self._lock:
            now = time.monotonic()
            every_s = self.every_s(running)
            asked = self._asked.get(key)
            apart_s = min(60 / self._settings.calls_per_minute, every_s)
            is_late = asked is None or now - asked >= every_s
            is_free = self._last is None or now - self._last >= apart_s
            if not is_urgent and not (is_late and is_free):
                return False
            self._asked[key] = self._last = now
            return True
