"""From Config to a whole node: stores, training, the model in service, and what keeps it there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from elias import __version__
from elias.config.schema import Config
from elias.domain.fields import as_json
from elias.domain.run import RunState
from elias.errors import EliasError, Refused
from elias.services.demand import DemandMeter
from elias.services.deploy import DeployService
from elias.services.keep_alive import KeepAlive
from elias.services.orphans import LOOK_EVERY as ORPHANS_EVERY
from elias.services.orphans import Orphans
from elias.services.route import Route, Running
from elias.services.schedule import LOOK_EVERY as SCHEDULES_EVERY
from elias.services.watching import Watching
from elias.services.weather import LOOK_EVERY as WEATHER_EVERY
from elias.services.weather import Weather
from elias.services.yielding import LOOK_EVERY as YIELD_EVERY
from elias.units import Clock, rfc3339
from elias.wiring.deploy import deploy_policy, deploy_service
from elias.wiring.listening import LOOK_EVERY as LISTEN_EVERY
from elias.wiring.listening import listening
from elias.wiring.orphans import elsewhere, orphans, troubles
from elias.wiring.schedule import scheduler
from elias.wiring.stores import Stores, open_engine, open_stores
from elias.wiring.train import Training, make_training
from elias.wiring.weather import weather
from elias.wiring.yielding import yielder
from elias_trainer.contract import write_whole

NODE_FILE = "node.json"
"""Process and address of the running node; there only while it runs, or when it was killed."""
LOCK_FILE = "node.lock"
KEY_FILE = "api.key"
_UNDER_WAY = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING, RunState.PAUSED)


@dataclass(kw_only=True)
class Node:
    config: Config
    url: str
    clock: Clock
    started_at: datetime
    stores: Stores
    service: DeployService
    keep_alive: KeepAlive
    training: Training
    degraded: list[str]
    """What does not work, each in one line with its fix."""
    orphans: Orphans | None = None
    """Over what goes on elsewhere in this node's name."""
    demand: DemandMeter = field(default_factory=DemandMeter)
    """Of the gateway."""
    weather: Weather | None = None
    """What does not work just now, by name."""
    watches: Sequence[Watching] = ()
    """The threads that look at something again and again, in the order in which they begin and end."""

    def start(self) -> None:
        """Carry runs on and bring the model into service; both go on in the background."""
        try:
            self.training.launch()
        except EliasError as error:
            self.degraded.append(f"training does not run: {error.what} ({error.fix})")
        self.keep_alive.start()
        for watch in self.watches:
            watch.start()

    def close(self) -> None:
        """Within 10 s."""
        for watch in self.watches:
            watch.stop()
        self.keep_alive.stop()
        self.service.close()
        self.training.stop()

    def status(self) -> dict[str, Any]:
        """What `elias status` shows."""
        now = self.clock.now()
        runs = [run for run in self.stores.runs.list() if run.state in _UNDER_WAY]
        looks = self.orphans.last if self.orphans else []
        notes = [*self.degraded, *troubles(looks), *([self.service.notice] if self.service.notice else [])]
        return {
            "node": self.config.node.name,
            "version": __version__,
            "url": self.url,
            "process": os.getpid(),
            "started_at": rfc3339(self.started_at),
            "uptime_s": round((now - self.started_at).total_seconds(), 1),
            "in_service": _running(self.service.route.current(), self.service.route),
            "standby": _running(self.service.standby, self.service.route),
            "change": self.service.change,
            "restarts": self.keep_alive.restarts,
            "runs": [_run(run.id, run.state, run.reason, run.base.reference, run.strategy) for run in runs],
            "elsewhere": elsewhere(self.training, looks, runs),
            "degraded": [as_json(s) | {"still_works": s.still_works} for s in self.weather.states()]
            if self.weather
            else [],
            "notes": notes,
        }


@contextmanager
def open_node(config: Config, url: str) -> Iterator[Node]:
    """With everything it holds, closed afterwards. Raises StoreError, ConfigError, MissingPackage."""
    from elias.adapters.clock import SystemClock

    clock = SystemClock()
    with open_stores(config) as stores:
        service = deploy_service(config, stores, Route())
        training, demand = make_training(config, stores, open_engine(config)), DemandMeter()
        makes_way, elsewhere_too = yielder(config, training, demand), orphans(config, training, clock)
        sky = weather(config, training, makes_way.yielding)
        node = Node(
            config=config,
            url=url,
            clock=clock,
            started_at=clock.now(),
            stores=stores,
            service=service,
            keep_alive=KeepAlive(service, deploy_policy(config), clock),
            training=training,
            degraded=[],
            orphans=elsewhere_too,
            demand=demand,
            weather=sky,
            watches=[
                Watching("yielder", makes_way.look, YIELD_EVERY, ends_within_s=5),
                Watching("weather", sky.look, WEATHER_EVERY),
                Watching("scheduler", scheduler(config, training, service).tick, SCHEDULES_EVERY),
                Watching("orphans", elsewhere_too.look, ORPHANS_EVERY),
                Watching("listening", listening(config, training), LISTEN_EVERY, ends_within_s=5),
            ],
        )
        try:
            yield node
        finally:
            node.close()


@contextmanager
def node_lock(home: Path) -> Iterator[None]:
    """Held by the one node of this home. Raises Refused when another process is it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("a") as lock:
        _lock_or_refuse(lock, home)
        try:
            yield
        finally:
            (home / NODE_FILE).unlink(missing_ok=True)


def announce(home: Path, url: str) -> None:
    """Tell other commands where the node is."""
    write_whole(home / NODE_FILE, json.dumps({"process": os.getpid(), "url": url}).encode())


def api_token(home: Path) -> str:
    """The key to everything that changes the node, made on first use and readable by its user alone."""
    path = home / KEY_FILE
    with contextlib.suppress(FileExistsError):
        scratch = home / f".{KEY_FILE}.{os.getpid()}"
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_urlsafe(32))
        try:
            os.link(scratch, path)  # fails when there is one already, and never shows half a key
        finally:
            scratch.unlink()
    return path.read_text().strip()


def _lock_or_refuse(lock: IO[str], home: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Refused(f"a node is up already for {home}", fix="elias status shows it; elias down stops it") from error


def _running(running: Running | None, route: Route) -> dict[str, Any] | None:
    if running is None:
        return None
    deployment = running.deployment
    return {
        "model": running.name,
        "base": deployment.base,
        "artifact": deployment.artifact,
        "engine": deployment.engine,
        "deployment": deployment.id,
        "deployed_at": rfc3339(deployment.deployed_at),
        "process": running.endpoint.process,
        "answers": running.is_alive() and (running is not route.current() or route.is_up()),
        "requests": route.inside(running),
    }


def _run(run: str, state: RunState, reason: str | None, base: str, strategy: str) -> dict[str, Any]:
    return {"id": run, "state": state, "reason": reason, "base": base, "strategy": strategy}
