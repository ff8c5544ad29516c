"""A durable engine in memory, on a clock of one's own: for the planner's simulator and for tests of workflows.

Workflows take turns, one at a time: one that sleeps lets the others go on, and when all sleep the clock is moved to the
earliest waking. With a simulated clock that makes a simulation: start everything, `launch`, `join`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from elias.errors import Refused
from elias.ports.durable import Workflow
from elias.units import Clock


@dataclass(slots=True)
class _Work:
    name: str
    key: str
    log: list[tuple[str, Any]] = field(default_factory=list)
    """Name and outcome of each finished step, in order."""
    wakes_at: datetime | None = None
    has_ended: bool = False
    error: Exception | None = None


@dataclass(slots=True)
class InlineMemory:
    """What outlives an engine: give it to the next one to see what a restart does."""

    work: dict[str, _Work] = field(default_factory=dict)
    is_taken: bool = False


class _Stopping(BaseException):
    """Unwinds a workflow at `stop`; nobody's `except Exception` catches it."""


class InlineEngine:
    def __init__(self, clock: Clock, memory: InlineMemory | None = None) -> None:
        self._clock = clock
        self._memory = memory or InlineMemory()
        self._workflows: dict[str, Workflow] = {}
        self._turn = threading.Condition()
        self._threads: dict[str, threading.Thread] = {}
        self._running: str | None = None
        self._is_launched = False
        self._is_stopping = False
        self._has_news = False
        self._scheduler: threading.Thread | None = None

    def register(self, name: str, workflow: Workflow) -> None:
        if self._is_launched:
            raise ValueError(f"{name!r} is registered after launch")
        self._workflows[name] = workflow

    def launch(self) -> None:
        if self._memory.is_taken:
            raise Refused("this engine already runs", fix="stop the other one first")
        self._memory.is_taken = self._is_launched = True
        self._is_stopping = False
        self._scheduler = threading.Thread(target=self._schedule, name="inline-engine", daemon=True)
        self._scheduler.start()

    def start(self, name: str, key: str) -> None:
        self._check(name, key)
        with self._turn:
            self._memory.work.setdefault(key, _Work(name, key))
            self._has_news = True
            self._turn.notify_all()

    def restart(self, name: str, key: str, wait: timedelta = timedelta(0)) -> None:
        self._check(name, key)
        with self._turn:
            if (work := self._memory.work.get(key)) is not None:
                self._turn.wait_for(lambda: work.has_ended, wait.total_seconds())
            if key not in self._memory.work or self._memory.work[key].has_ended:
                self._memory.work[key] = _Work(name, key)
            self._has_news = True
            self._turn.notify_all()

    def stop(self) -> None:
        if not self._is_launched or self._scheduler is None:
            return
        with self._turn:
            self._is_stopping = True
            self._turn.notify_all()
        self._scheduler.join()
        for thread in list(self._threads.values()):
            thread.join()
        self._threads.clear()
        self._is_launched = self._memory.is_taken = False

    def join(self) -> None:
        """Return once every workflow has ended. Raises the first error that one ended with."""
        with self._turn:
            self._turn.wait_for(lambda: all(work.has_ended for work in self._memory.work.values()))
            errors = [work.error for work in self._memory.work.values() if work.error]
        if errors:
            raise errors[0]

    def _check(self, name: str, key: str) -> None:
        if not key or any(letter.isspace() or letter in "#%" for letter in key):
            raise ValueError(f"a key has no space, # or %: {key!r}")
        if self._is_launched and name not in self._workflows:
            raise ValueError(f"no workflow is registered as {name!r}")

    def _schedule(self) -> None:
        """Give the turn to whoever woke first; of two, to the one that was started first."""
        with self._turn:
            while not self._is_stopping:
                work = self._next()
                if work is None:
                    self._turn.wait()
                    continue
                if work.wakes_at is not None and work.wakes_at > self._clock.now():
                    self._pass_time(work.wakes_at - self._clock.now())
                else:
                    self._give_turn(work)

    def _pass_time(self, span: timedelta) -> None:
        """Holding `_turn`: until the clock has moved, or there is something else to do. A real clock may take hours."""
        has_passed = threading.Event()

        def nap() -> None:
            self._clock.sleep(span)
            with self._turn:
                has_passed.set()
                self._turn.notify_all()

        self._has_news = False
        threading.Thread(target=nap, name="inline-clock", daemon=True).start()
        self._turn.wait_for(lambda: has_passed.is_set() or self._has_news or self._is_stopping)

    def _next(self) -> _Work | None:
        waiting = [work for work in self._memory.work.values() if not work.has_ended and work.name in self._workflows]
        now = self._clock.now()
        return min(waiting, key=lambda work: max(work.wakes_at or now, now), default=None)

    def _give_turn(self, work: _Work) -> None:
        """Holding `_turn`: let it run until it sleeps, ends or stops."""
        self._running = work.key
        if work.key not in self._threads:
            thread = threading.Thread(target=self._run, args=(work,), name=f"inline-{work.key}", daemon=True)
            self._threads[work.key] = thread
            thread.start()
        self._turn.notify_all()
        self._turn.wait_for(lambda: self._running is None)

    def _run(self, work: _Work) -> None:
        try:
            self._workflows[work.name](_InlineSteps(self, work), work.key)
            self._end(work, None)
        except Exception as error:  # noqa: BLE001  # not swallowed: `join` raises it
            self._end(work, error)
        except BaseException:  # noqa: BLE001  # cut off, by `stop` or by whoever plays a crash: it has not ended
            self._end(None, None)

    def _end(self, work: _Work | None, error: Exception | None) -> None:
        with self._turn:
            # gone from here on, though it may live for a moment yet: its key may be started anew at once
            own = threading.current_thread()
            self._threads = {key: thread for key, thread in self._threads.items() if thread is not own}
            if work is not None:
                work.has_ended, work.error = True, error
            if self._running is not None and (work is None or self._running == work.key):
                self._running = None
            self._turn.notify_all()

    def go_on(self) -> None:
        """Raises _Stopping once `stop` was called."""
        if self._is_stopping:
            raise _Stopping

    def sleep_until(self, work: _Work, until: datetime) -> None:
        with self._turn:
            if until <= self._clock.now():
                return
            work.wakes_at = until
            self._running = None
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._running == work.key or self._is_stopping)
            work.wakes_at = None
        self.go_on()

    def now(self) -> datetime:
        return self._clock.now()


class _InlineSteps:
    def __init__(self, engine: InlineEngine, work: _Work) -> None:
        self._engine = engine
        self._work = work
        self._done = 0

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self._engine.go_on()
        if self._done == len(self._work.log):
            self._work.log.append((name, _outcome(function, arguments)))
        known, outcome = self._work.log[self._done]
        if known != name:
            raise RuntimeError(f"the workflow {self._work.name} changed: step {self._done} was {known!r}, is {name!r}")
        self._done += 1
        if isinstance(outcome, Exception):
            raise outcome
        return json.loads(outcome)

    def sleep(self, span: timedelta) -> None:
        until = self.step("sleep", lambda: (self._engine.now() + span).isoformat())
        self._engine.sleep_until(self._work, datetime.fromisoformat(until))


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str | Exception:
    try:
        return json.dumps(function(*arguments), allow_nan=False)
    except Exception as error:  # noqa: BLE001  # not swallowed: it is recorded, and raised in the workflow
        return error
