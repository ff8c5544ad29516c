"""Room 7. Puts a model in service beside the one that serves, moves the requests over, and keeps it alive."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from elias.domain.deployment import Deployment
from elias.errors import EliasError, Refused
from elias.services.history import DEPLOY, ROLLBACK, START, check_gate, model_of, standing
from elias.services.launch import Launcher, Means, Policy, Started
from elias.services.route import Route, Running
from elias_trainer.contract import Digest

_LAST_DRAIN = timedelta(seconds=4)
"""Of requests under way when the node is told to stop, which it does within 10 s."""
_STOP_S = 4.0
"""What an engine takes to end at most."""
_STANDBY_ANSWERS_S = 1.0
"""A rollback takes under 5 s: an engine in standby that is silent for longer is started anew."""
_DRAIN_SLICE = timedelta(milliseconds=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeployRequest:
    artifact: str | None
    """By digest, prefix or `latest`; None is the bare base."""
    base: str | None = None
    """For the bare base; None is the one of the model in service."""
    engine: str | None = None
    past_gate: bool = False
    """Whether it may go into service without an accepting verdict."""


class DeployService:
    """One change at a time, from any thread. Until the new model has answered, the old one serves."""

    def __init__(self, means: Means, policy: Policy, route: Route) -> None:
        self.route = route
        self._means, self._policy = means, policy
        self._launcher = Launcher(means, policy)
        self._changing = threading.Lock()
        self._standby: Running | None = None
        self._retiring: list[threading.Thread] = []
        self._closing_at = math.inf
        self.notice: str | None = None
        """What a person should know about how it serves, in one line."""
        self.change: str | None = None
        """What is under way, such as `starting starter`."""

    def history(self) -> Sequence[Deployment]:
        return self._means.models.deployments()

    @property
    def standby(self) -> Running | None:
        return self._standby

    def start(self) -> None:
        """Serve what was in service; what cannot be served any more gives way to the one before it.

        Raises the error of the newest one when nothing can be served.
        """
        with self._change("starting"):
            stack = standing(self.history())
            wanted: list[tuple[str, Digest | None, str | None]] = [(d.base, d.artifact, d.engine) for d in stack]
            wanted += [(base, None, None) for base in self._policy.default_bases]
            errors: list[EliasError] = []
            for base, artifact, engine in wanted:
                try:
                    started = self._launcher.launch(base, artifact, engine)
                except EliasError as error:
                    errors.append(error)
                    continue
                self._serve(started, ROLLBACK if errors and stack else START)
                if errors:
                    self.notice = f"{errors[0].what}; {started.model.name} serves in its place"
                elif not stack:
                    self.notice = f"nothing was deployed yet: the base {started.model.name} serves"
                return
            raise errors[0]

    def deploy(self, request: DeployRequest) -> Deployment:
        """Raises NotFound, GateRefused, a VerificationError or EngineError; then nothing has changed."""
        with self._change("deploying"):
            base, artifact = self._wanted(request)
            if artifact is not None and not request.past_gate:
                check_gate(artifact, self._in_service(), self._means.models.verdicts(artifact))
            started = self._launcher.launch(base, artifact, request.engine)
            self.notice = None
            return self._serve(started, DEPLOY)

    def rollback(self, why: str | None = None) -> Deployment:
        """Back to the model before this one: at once when it waits in standby. Raises Refused when there is none."""
        with self._change("rolling back"):
            stack = standing(self.history())
            if len(stack) < 2:
                kept = "the model in service stays"
                raise Refused("no model was in service before this one", fix="elias model list", kept=kept)
            target, waiting = stack[1], self._standby
            is_there = waiting and model_of(waiting.deployment) == model_of(target) and waiting.is_alive()
            if waiting and is_there and self.answers(waiting, _STANDBY_ANSWERS_S):
                started = waiting.started
            else:
                started = self._launcher.launch(target.base, target.artifact, target.engine)
            deployment = self._serve(started, ROLLBACK)
            self.notice = why
            return deployment

    def revive(self, dead: Running) -> None:
        """Start its model anew in its place. Raises as `deploy` does."""
        deployment = dead.deployment
        started = self._launcher.launch(deployment.base, deployment.artifact, deployment.engine)
        if not self.route.replace(dead, Running(deployment=deployment, started=started)):
            started.stop()
        dead.stop()

    def answers(self, running: Running, within_s: float) -> bool:
        """Whether its engine does, and not only lives."""
        return self._means.answers(running.endpoint, within_s)

    def tend_standby(self) -> None:
        """Let it go when it has died, or when its memory is wanted."""
        waiting = self._standby
        if waiting and not (waiting.is_alive() and self._means.has_room()) and self._changing.acquire(blocking=False):
            try:
                if self._standby is waiting:
                    self._standby = None
                    self._retire(waiting)
            finally:
                self._changing.release()

    def close(self) -> None:
        """Let requests finish for a moment, then end every engine. One that only starts ends with this process."""
        self._closing_at = time.monotonic() + _LAST_DRAIN.total_seconds()
        has_turn = self._changing.acquire(timeout=_LAST_DRAIN.total_seconds() / 2)
        try:
            running, self._standby, waiting = self.route.swap(None), None, self._standby
            for old in (running, waiting):
                if old:
                    self._retire(old)
        finally:
            if has_turn:
                self._changing.release()
        for thread in self._retiring:
            thread.join(max(0.0, self._closing_at + _STOP_S - time.monotonic()))

    def _wanted(self, request: DeployRequest) -> tuple[str, Digest | None]:
        if request.artifact is not None:
            artifact = self._means.models.artifact(request.artifact)
            return artifact.base_reference, artifact.digest
        current = self.route.current()
        return request.base or (current.deployment.base if current else self._policy.default_bases[0]), None

    def _in_service(self) -> Digest | None:
        newest = next(iter(self.history()), None)
        return newest.artifact if newest else None

    def _serve(self, started: Started, why: str) -> Deployment:
        """Record it, then move the requests over: after a crash between the two, the node starts the new one."""
        waiting = self._standby
        is_waiting = waiting is not None and waiting.endpoint == started.endpoint
        try:
            if self._closing_at < math.inf:
                raise Refused("the node is going down", fix="elias up, then try again")
            deployment = self._means.models.add_deployment(started.base, started.artifact, started.engine_name, why)
        except EliasError:
            if not is_waiting:
                started.stop()
            raise
        old = self.route.swap(Running(deployment=deployment, started=started))
        if old and model_of(old.deployment) == model_of(deployment):
            self._retire(old)
            return deployment
        self._standby = None
        if waiting and not is_waiting:
            self._retire(waiting)
        if old and why == DEPLOY and old.is_alive() and self._means.has_room():
            self._standby = old
        elif old:
            self._retire(old)
        return deployment

    def _retire(self, running: Running) -> None:
        """End it once its last request is answered; nobody waits for that."""
        thread = threading.Thread(target=self._drain_and_stop, args=(running, self._policy.drain), daemon=True)
        thread.start()
        self._retiring = [t for t in self._retiring if t.is_alive()] + [thread]

    def _drain_and_stop(self, running: Running, within: timedelta) -> None:
        last = time.monotonic() + within.total_seconds()
        while not self.route.drain(running, _DRAIN_SLICE):
            if time.monotonic() > min(last, self._closing_at):
                break
        running.stop()

    @contextmanager
    def _change(self, what: str) -> Iterator[None]:
        with self._changing:
            self.change = what
            try:
                yield
            finally:
                self.change = None
