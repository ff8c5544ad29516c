"""A real node in this process: its gateway on a port, its durable engine, the real trainer; the model is an echo."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.adapters.clock import SystemClock
from elias.adapters.engines.ask import answers, ask
from elias.config import Config
from elias.config.schema import Serving
from elias.domain.run import Run, RunState, Segment
from elias.services.demand import DemandMeter
from elias.services.deploy import DeployService
from elias.services.keep_alive import KeepAlive
from elias.services.launch import Means, Policy
from elias.services.route import Route
from elias.services.runs import Wanted, new_run
from elias.services.watching import Watching
from elias.services.yielding import LOOK_EVERY
from elias.testing.echo_engine import EchoEngine
from elias.testing.served import served
from elias.testing.waiting import wait_until
from elias.web.app import make_app
from elias.web.server import bind
from elias.wiring.corpus import corpus_from_data, open_blobs
from elias.wiring.node import Node
from elias.wiring.stores import Stores, open_engine, open_stores
from elias.wiring.train import Parts, make_training
from elias.wiring.weather import weather
from elias.wiring.yielding import yielder
from elias_trainer.contract import BaseModel, Digest, Recipe, digest_file


class Ahead(SystemClock):
    """The machine's clock as it was when this one was made, put forward by hand alone."""

    def __init__(self) -> None:
        self.began_at, self.by = super().now(), timedelta(0)

    def now(self) -> datetime:
        return self.began_at + self.by


def chat(number: int) -> dict[str, object]:
    """Long enough that a step takes a while on any machine."""
    question, answer = f"what is {number} and {number}?", f"it is {2 * number}, " * 20
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@dataclass
class Living:
    """The node, and what a test does with it."""

    node: Node
    echo: EchoEngine
    url: str
    home: Path

    def train(self, steps: int) -> Run:
        chats = self.home / "chats.jsonl"
        chats.write_text("".join(json.dumps(chat(n)) + "\n" for n in range(24)))
        corpus = corpus_from_data(self.node.config, self.node.stores, chats)
        recipe = Recipe(max_steps=steps, batch_size=1, sequence_length=256, rank=2)
        run = new_run(Wanted(strategy="local", base=BaseModel(reference="tiny"), recipe=recipe), corpus, SystemClock())
        self.node.training.runs.begin(run)
        return run

    def run(self, run: Run) -> Run:
        return self.node.stores.runs.get(run.id)

    def segments(self, run: Run) -> Sequence[Segment]:
        return self.node.stores.runs.segments(run.id)

    def step(self, run: Run) -> int:
        """The newest that its trainers told of."""
        events = [event for s in self.segments(run) for event in self.node.stores.runs.events(s.key)]
        return max((int(event["step"]) for event in events if event["kind"] == "step"), default=0)

    def until_step(self, run: Run, step: int) -> None:
        wait_until(lambda: self.step(run) >= step)

    def until_done(self, run: Run) -> Run:
        wait_until(lambda: self.run(run).state.is_standing)
        found = self.run(run)
        assert found.state is RunState.DONE, found.reason
        return found

    def trainers(self) -> list[psutil.Process]:
        """Those of this home that live."""
        found = psutil.process_iter(["cmdline", "status"])
        mine = [p for p in found if any(str(self.home) in word for word in p.info["cmdline"] or [])]
        return [p for p in mine if p.info["status"] != psutil.STATUS_ZOMBIE]


Open = Callable[..., Living]


@pytest.fixture
def echo() -> EchoEngine:
    return EchoEngine()


@pytest.fixture
def open_living(tmp_path: Path, echo: EchoEngine) -> Iterator[Open]:
    """Call it with [serving]'s settings, or other places; every node that it opened is closed at the end."""
    closing: list[Callable[[], None]] = []

    def make(
        name: str = "home",
        places: Mapping[str, Mapping[str, Any]] | None = None,
        clock: SystemClock | None = None,
        **serving: object,
    ) -> Living:
        home, backends = tmp_path / name, {"local": {"threads": 1}, **(places or {})}
        from_file = {"home": "a test"}  # as one that was loaded: caps are read anew from its file
        config = Config(home=home, serving=Serving(**serving), backends=backends, origins=from_file)  # type: ignore[arg-type]
        context = _living(config, echo, clock or SystemClock())
        living = context.__enter__()
        closing.append(lambda: context.__exit__(None, None, None))
        return living

    yield make
    for close in reversed(closing):
        close()


@contextmanager
def _living(config: Config, echo: EchoEngine, clock: SystemClock) -> Iterator[Living]:
    with open_stores(config) as stores:
        listener = bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        living = _make(config, stores, (echo, clock), url)
        app = make_app(living.node, token="t" * 32, is_local=True, stop=lambda: None)
        try:
            with served(app, listener, lifespan="on"):
                living.node.start()
                wait_until(living.node.service.route.is_up)
                yield living
        finally:
            living.node.close()
            for process in living.trainers():
                with suppress(psutil.NoSuchProcess):  # it ended just now
                    process.kill()


def _make(config: Config, stores: Stores, given: tuple[EchoEngine, SystemClock], url: str) -> Living:
    echo, clock = given
    blobs, demand = open_blobs(config, stores), DemandMeter()

    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        return digest_file(out / "adapter" / "adapter_model.safetensors")

    training = make_training(
        config,
        stores,
        open_engine(config),
        Parts(archive=write_trainer_archive, finish=finish, blobs=blobs, clock=clock),
    )
    makes_way = yielder(config, training, demand)
    means = Means(
        models=stores.models,
        engines={"only": echo},
        verify=lambda _: config.home,
        ask=ask,
        has_room=lambda: True,
        logs=config.home / "logs",
        answers=answers,
    )
    policy = Policy(default_bases=("small",), drain=timedelta(seconds=2))
    service = DeployService(means, policy, Route())
    node = Node(
        config=config,
        url=url,
        clock=clock,
        started_at=clock.now(),
        stores=stores,
        service=service,
        keep_alive=KeepAlive(service, policy, clock),
        training=training,
        degraded=[],
        demand=demand,
        weather=weather(config, training, makes_way.yielding),  # a test looks at it when it wants to
        watches=[Watching("yielder", makes_way.look, LOOK_EVERY)],
    )
    return Living(node=node, echo=echo, url=url, home=config.home)
