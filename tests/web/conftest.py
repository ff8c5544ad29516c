"""A node with its web application on a real port, in this process; what serves is an engine that echoes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from elias.adapters.clock import SystemClock
from elias.adapters.engines.ask import answers, ask
from elias.config import Config
from elias.ports.inference import InferenceEngine
from elias.services.deploy import DeployService
from elias.services.keep_alive import KeepAlive
from elias.services.launch import Means, Policy
from elias.services.route import Route
from elias.testing.echo_engine import EchoEngine
from elias.testing.served import served
from elias.testing.waiting import PATIENCE_S, wait_until
from elias.web.app import make_app
from elias.web.gateway import Limits
from elias.web.server import bind
from elias.wiring.node import Node
from elias.wiring.stores import open_engine, open_stores
from elias.wiring.train import make_training
from elias_trainer.contract import Digest

TOKEN = "t" * 32


@dataclass
class Website:
    url: str
    node: Node
    service: DeployService
    stopped: threading.Event = field(default_factory=threading.Event)

    def allow_silence(self, span: timedelta) -> None:
        """From now on an engine that answers nothing for so long is replaced; before, only after a long time."""
        keep_alive = self.node.keep_alive
        keep_alive._policy = replace(keep_alive._policy, silent_for=span)


Open = Callable[..., Website]


@pytest.fixture
def open_website(tmp_path: Path) -> Iterator[Open]:
    """Call it with the engine, the base to serve, what verifies an artifact, limits; the base is in service then."""
    with open_stores(Config(home=tmp_path)) as stores, ExitStack() as opened:

        def make(
            engine: InferenceEngine,
            *,
            base: str = "small",
            verify: Callable[[Digest], Path] = lambda _: tmp_path,
            limits: Limits | None = None,
            is_local: bool = True,
        ) -> Website:
            config, clock = Config(home=tmp_path), SystemClock()
            listener = bind("127.0.0.1", 0)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            means = Means(
                models=stores.models,
                engines={"only": engine},
                verify=verify,
                ask=ask,
                has_room=lambda: True,
                logs=tmp_path / "logs",
                answers=answers,
            )
            patience = timedelta(seconds=PATIENCE_S)
            policy = Policy(default_bases=(base,), drain=patience, silent_for=patience)
            service = DeployService(means, policy, Route())
            node = Node(
                config=config,
                url=url,
                clock=clock,
                started_at=clock.now(),
                stores=stores,
                service=service,
                keep_alive=KeepAlive(service, policy, clock),
                training=make_training(config, stores, open_engine(config)),
                degraded=[],
            )
            website = Website(url=url, node=node, service=service)
            app = make_app(
                node,
                token=TOKEN,
                is_local=is_local,
                stop=website.stopped.set,
                limits=limits or Limits(wait_s=PATIENCE_S),
            )
            opened.callback(node.close)
            opened.enter_context(served(app, listener, lifespan="on"))
            node.keep_alive.start()
            wait_until(service.route.is_up)
            return website

        yield make


@pytest.fixture
def echo() -> EchoEngine:
    return EchoEngine()
