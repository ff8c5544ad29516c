"""Room 7. Watches over the engine in service: starts it again when it ends or hangs, and leaves a model that keeps
ending."""

from __future__ import annotations

import logging
import threading
from collections import deque
from datetime import datetime, timedelta

from elias.errors import EliasError, Refused
from elias.services.deploy import DeployService
from elias.services.launch import Policy
from elias.services.route import Running
from elias.units import Clock

log = logging.getLogger("elias.deploy")

_LOOK_EVERY_S = 0.25
_ASK_EVERY = timedelta(seconds=3)
"""Whether it answers; more often where less silence is allowed."""
_ANSWER_WITHIN_S = 2.0


class KeepAlive:
    """A thread of its own, from `start` to `stop`."""

    def __init__(self, service: DeployService, policy: Policy, clock: Clock) -> None:
        self._service, self._policy, self._clock = service, policy, clock
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._deaths: deque[datetime] = deque()
        self._attempts = 0
        self._watched: Running | None = None
        self._asked_at: datetime | None = None
        self._silent_since: datetime | None = None
        self._thread = threading.Thread(target=self._watch, name="keep-alive", daemon=True)
        self.restarts = 0
        service.route.on_trouble = self._wake.set

    def start(self) -> None:
        """The model in service is started by this thread, so that nobody waits for it."""
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except EliasError as error:
                self._attempts += 1
                self._service.notice = f"{error.what} ({error.fix})"
                log.error("deploy.failed: %s", error.what)
            except Exception:  # the loop that keeps a model in service outlives any bug
                self._attempts += 1
                self._service.notice = "keeping the model in service failed; the node's log says how"
                log.exception("deploy.bug")
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()

    def _look(self) -> None:
        route = self._service.route
        current = route.current()
        if current is None:
            self._pause()
            if not self._stopping.is_set():
                self._service.start()
                self._attempts = 0
            return
        if not current.is_alive():
            route.mark(current, up=False)
            self._bring_back(current, "ended")
        elif self._hangs(current):
            route.mark(current, up=False)
            current.stop()  # first: requests that wait in it are asked again of the next one
            self._bring_back(current, f"answered nothing for {self._policy.silent_for.total_seconds():.0f} s")
        else:
            self._service.tend_standby()

    def _hangs(self, running: Running) -> bool:
        """Whether it lives, and has been silent for too long; it is asked now and then, at once after a trouble."""
        route, now = self._service.route, self._clock.now()
        if running is not self._watched:
            self._watched, self._asked_at, self._silent_since = running, None, None
        every = min(_ASK_EVERY, self._policy.silent_for / 4)
        if self._asked_at and now - self._asked_at < every and route.is_up():
            return False
        self._asked_at = now
        if self._service.answers(running, min(_ANSWER_WITHIN_S, every.total_seconds())):
            self._silent_since = None
            route.mark(running, up=True)
            return False
        self._silent_since = self._silent_since or now
        return self._clock.now() - self._silent_since >= self._policy.silent_for

    def _bring_back(self, dead: Running, how: str) -> None:
        now = self._clock.now()
        self._deaths.append(now)
        while self._deaths and now - self._deaths[0] > self._policy.deaths_within:
            self._deaths.popleft()
        log.warning("engine.ended: %s, process %s: %s", dead.name, dead.endpoint.process, how)
        if len(self._deaths) > self._policy.deaths_allowed and self._fall_back(dead):
            return
        self._attempts = len(self._deaths) - 1
        self._pause()
        if self._stopping.is_set() or self._service.route.current() is not dead:
            return
        self.restarts += 1
        self._service.revive(dead)
        self._service.notice = f"the engine of {dead.name} {how} and was started again"

    def _fall_back(self, dead: Running) -> bool:
        """Whether there was a model to go back to."""
        count = len(self._deaths)
        try:
            why = f"{dead.name} kept ending ({count} times); the model before it is back in service"
            self._service.rollback(why)
        except Refused:
            return False
        self._deaths.clear()
        return True

    def _pause(self) -> None:
        waits = self._policy.restart_after
        self._stopping.wait(waits[min(self._attempts, len(waits) - 1)].total_seconds())
