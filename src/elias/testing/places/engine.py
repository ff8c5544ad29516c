"""The inline engine on a clock that takes no time, and how a step of the real coordinator waits on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from elias.testing.inline_engine import InlineEngine, InlineMemory
from elias.testing.places.world import WorldClock

Quiet = Callable[[str], datetime | None]
"""A workflow's key -> until when a poll would say nothing new; None asks at its usual pace."""


class Killed(BaseException):
    """The node's process is gone, here and now. No Exception: nothing in it handles this."""


class SimulatedEngine(InlineEngine):
    def __init__(self, clock: WorldClock, memory: InlineMemory) -> None:
        super().__init__(clock, memory)
        self._world = clock
        self.memory = memory

    def rest(self, span: timedelta) -> None:
        """In a workflow's own thread, in the middle of a step: let the others go on for so long."""
        work = self.memory.work[threading.current_thread().name.removeprefix("inline-")]
        self.sleep_until(work, self._world.now() + max(span, timedelta(microseconds=1)))

    def halt(self) -> None:
        """The process is gone: nothing in it goes on. From any thread; `stop` clears up."""
        with self._turn:
            self._is_stopping = True
            self._turn.notify_all()

    def live(self) -> bool:
        """Return once every workflow has ended, which is True, or the process is gone."""
        with self._turn:
            self._turn.wait_for(lambda: self._is_stopping or all(w.has_ended for w in self.memory.work.values()))
            return not self._is_stopping

    def _pass_time(self, span: timedelta) -> None:
        self._world.sleep(span)


class SimulatedStop(threading.Event):
    """In place of the coordinator's own stop event: its waits pass in simulated time.

    Polls that would say nothing new are left out: a wait goes on until there is news, or for the usual span.
    """

    def __init__(self, engine: SimulatedEngine, clock: WorldClock, quiet: Quiet) -> None:
        super().__init__()
        self._engine, self._world, self._quiet = engine, clock, quiet

    def wait(self, timeout: float | None = None) -> bool:
        span = timedelta(seconds=timeout or 0.0)
        key = threading.current_thread().name.removeprefix("inline-")
        if (until := self._quiet(key)) is not None:
            span = max(span, until - self._world.now())
        self._engine.rest(span)
        return self.is_set()
