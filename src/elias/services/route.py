"""Room 7. Where requests go: one engine at a time, exchanged between two requests, never in the middle of one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from elias.domain.deployment import Deployment
from elias.ports.inference import Endpoint
from elias.services.launch import Started


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Running:
    """A started engine. Two are the same only when they are one process."""

    deployment: Deployment
    started: Started

    @property
    def name(self) -> str:
        return self.started.model.name

    @property
    def endpoint(self) -> Endpoint:
        return self.started.endpoint

    def is_alive(self) -> bool:
        return self.started.engine.is_alive(self.endpoint)

    def stop(self) -> None:
        self.started.stop()


class Route:
    """Safe from any thread; no call but `drain` waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._current: Running | None = None
        self._is_up = False
        self._inside: Counter[Endpoint] = Counter()
        self.on_trouble: Callable[[], None] = lambda: None
        """Called when a request found its engine gone."""

    def current(self) -> Running | None:
        """Up or not."""
        with self._changed:
            return self._current

    def is_up(self) -> bool:
        with self._changed:
            return self._is_up

    def swap(self, new: Running | None) -> Running | None:
        """New requests go to `new` from now on; the one before."""
        with self._changed:
            old, self._current, self._is_up = self._current, new, new is not None
            return old

    def replace(self, old: Running, new: Running) -> bool:
        """Swap, unless something else has taken the place of `old` meanwhile."""
        with self._changed:
            if self._current is not old:
                return False
            self._current, self._is_up = new, True
            return True

    def mark(self, running: Running, *, up: bool) -> None:
        """Whether requests may go to `running`; of no effect on one that is not current."""
        with self._changed:
            if self._current is running:
                self._is_up = up

    def report(self, running: Running) -> None:
        """A request could not reach `running`: no more go there until somebody has looked."""
        self.mark(running, up=False)
        self.on_trouble()

    def enter(self) -> Running | None:
        """Begin a request; None while nothing answers. Each one that entered leaves."""
        with self._changed:
            if self._current is None or not self._is_up:
                return None
            self._inside[self._current.endpoint] += 1
            return self._current

    def leave(self, running: Running) -> None:
        with self._changed:
            self._inside[running.endpoint] -= 1
            if not self._inside[running.endpoint]:
                del self._inside[running.endpoint]
            self._changed.notify_all()

    def inside(self, running: Running) -> int:
        """Requests under way in it."""
        with self._changed:
            return self._inside[running.endpoint]

    def drain(self, running: Running, within: timedelta) -> bool:
        """Wait until no request is under way in it; False when the time was up first."""
        deadline = time.monotonic() + within.total_seconds()
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._inside[running.endpoint], max(0, deadline - time.monotonic())
            )
