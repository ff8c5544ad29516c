"""What the benches of kills at a place's requests share: a coordinator is killed with -9 at request n, another goes on.

A run is two chained segments with private data; each kill has a run of its own. `kaggle_kills` and `sagemaker_kills`
say what their world is, and what must be as after a run that nothing disturbed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.domain.label import Label
from elias.domain.run import Run, RunState, Segment
from elias.services.runs import Wanted, new_run
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS, small_corpus
from elias.testing.fake_trainer import build_fake_trainer, expected_adapter
from elias.units import Clock
from elias.wiring.attest import make_node
from elias.wiring.stores import Stores, open_stores
from elias.wiring.train import Parts, Training, open_training
from elias_trainer.contract import Digest, digest_file

STEPS, FIRST_STEPS = 24, 14
TIDIES_WITHIN_S = 240.0
MOMENTS = ("unsent", "reached", "answered")
forked = multiprocessing.get_context("fork")
"""Each process of a node begins as a copy of this one, which has imported everything and started no thread."""


class World(Protocol):
    """A node with a run that is to begin, and the place that it knows."""

    home: Path
    run: str

    def config(self) -> Config: ...

    def requests(self) -> list[dict[str, Any]]:
        """That the place received so far."""
        ...

    def served(self) -> AbstractContextManager[None]:
        """While the place answers; in a process of its own, since it needs threads and this process may have none."""
        ...

    def client(self) -> type:
        """The class whose `send` puts a request on the wire."""
        ...

    def faults(self) -> list[str]:
        """What is not as after a run that nothing disturbed. Called while it is served."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    name: str
    prepare: Callable[[Path], World]
    set_up: Callable[[Path], None]
    """The environment, in a folder, and every import."""
    patience_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """Of the process that makes the request, which it counts from 1."""

    number: int
    moment: str


def main(place: Place, about: str) -> int:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--requests", help="such as 1-9,14; by default all")
    parser.add_argument("--moments", default=",".join(MOMENTS))
    parser.add_argument("--record", type=Path, help="a file with a line a kill: what is in it is counted, not repeated")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix=f"elias-{place.name}-kills-"))
    place.set_up(home)
    if threading.active_count() > 1:
        raise SystemExit("an import has started a thread: processes cannot be copied from here")
    kills = Kills(place, home, given.record or home / "kills.jsonl")
    report = kills.run(_numbers(given.requests) if given.requests else None, given.moments.split(","))
    print(json.dumps(report))
    if report["wrong"]:
        print(f"kept for a look: {home}", file=sys.stderr)
        return 1
    shutil.rmtree(home)
    return 0


@dataclass
class Kills:
    place: Place
    home: Path
    record: Path
    wrong: list[str] = field(default_factory=list)

    def run(self, numbers: Sequence[int] | None, moments: Sequence[str]) -> dict[str, Any]:
        calls = [request["call"] for request in self.one(None)[0]]
        chosen = range(1, len(calls) + 1) if numbers is None else [n for n in numbers if n <= len(calls)]
        known = {(row["request"], row["moment"]) for row in self.tried()}
        for moment in moments:
            for number in chosen:
                if (number, moment) not in known:
                    self.kill(Death(number=number, moment=moment))
        rows = list(self.tried())
        return {
            "bench": f"{self.place.name}.kills",
            "where": "emulated",
            "requests": len(calls),
            "calls": dict(Counter(calls)),
            "tried": len(rows),
            "killed": sum(row["killed"] for row in rows),
            "moments": dict(Counter(row["moment"] for row in rows if row["killed"])),
            "wrong": self.wrong + [fault for row in rows for fault in row["wrong"]],
            "seconds": round(sum(row["seconds"] for row in rows), 1),
        }

    def kill(self, death: Death) -> None:
        began, before = time.monotonic(), len(self.wrong)
        _, was_killed = self.one(death)
        row = {"request": death.number, "moment": death.moment, "killed": was_killed}
        row |= {"wrong": self.wrong[before:], "seconds": round(time.monotonic() - began, 1)}
        del self.wrong[before:]
        with self.record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")

    def tried(self) -> list[dict[str, Any]]:
        lines = self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []
        return [json.loads(line) for line in lines]

    def one(self, death: Death | None) -> tuple[list[dict[str, Any]], bool]:
        """One run, killed or left alone, checked; the requests that the place received, and whether it was killed."""
        what = f"killed with request {death.number} {death.moment}" if death else "left alone"
        folder = self.home / what.replace(" ", "-")
        world = self.place.prepare(folder)
        with world.served():
            was_killed = death is not None and self.carried(world, death) == -signal.SIGKILL
            code = self.carried(world, None)
            found = [] if code == 0 else [f"the process that goes on with it ended with {code}"]
            requests = world.requests()
            found += world.faults()
        self.wrong += [f"{what}: {fault}" for fault in found]
        print(f"{what}: {'; '.join(found) or 'as if nothing had been'}", file=sys.stderr, flush=True)
        if not found:
            shutil.rmtree(folder)
        return requests, was_killed

    def carried(self, world: World, death: Death | None) -> int | None:
        """The exit code of a coordinator's process; None when it had to be stopped because nothing came of it."""
        process = forked.Process(target=carry, args=(world, death))
        process.start()
        process.join(self.place.patience_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None
        return process.exitcode


def _tells_when_tidied(training: Training) -> threading.Event:
    """Set once the step that ends a run has ended too: a run is done before its place has been left in order."""
    finish, tidied = training.coordinator.finish, threading.Event()

    def finished(run_id: str, number: int) -> None:
        finish(run_id, number)
        tidied.set()

    training.coordinator.finish = finished  # type: ignore[method-assign]
    return tidied


def carry(world: World, death: Death | None) -> None:
    """What a node does: becomes the engine, and goes on with the run until it has ended."""
    if death:
        Hook(death, world).install()
    config = world.config()
    with open_training(config, parts_of(config.home)) as training:
        tidied = _tells_when_tidied(training)
        quick(training).launch()
        while not (run := training.stores.runs.get(world.run)).state.is_final:
            if run.state is RunState.FAILED:
                sys.exit(f"failed: {run.reason}")
            time.sleep(0.02)
        tidied.wait(TIDIES_WITHIN_S)


class Hook:
    """Ends this process as by -9 at one of its requests."""

    def __init__(self, death: Death, world: World) -> None:
        self._death = death
        self._world = world
        self._count = 0
        self._lock = threading.Lock()
        self._mine = threading.local()
        """The number of the request that a thread is at."""

    def install(self) -> None:
        """Around what crosses the wire, in the libraries that the place's own client uses."""
        from urllib3.connection import HTTPConnection

        client: Any = self._world.client()
        send, answer = client.send, HTTPConnection.getresponse

        def counted(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self._count += 1
                self._mine.number = self._count
            self._die_if("unsent")
            response = send(*arguments, **options)
            self._die_if("answered")
            return response

        def watched(*arguments: Any, **options: Any) -> Any:
            if self._is_it("reached"):
                while len(self._world.requests()) < self._death.number:
                    time.sleep(0.002)  # until the place has it
                self._die_if("reached")
            return answer(*arguments, **options)

        client.send = counted
        HTTPConnection.getresponse = watched  # type: ignore[method-assign] # the vendor's, to count

    def _is_it(self, moment: str) -> bool:
        return self._death.moment == moment and getattr(self._mine, "number", 0) == self._death.number

    def _die_if(self, moment: str) -> None:
        if self._is_it(moment):
            os.kill(os.getpid(), signal.SIGKILL)


def begin(config: Config, wanted: Wanted) -> str:
    """A run of private data on a new node, written down by a process of its own; its id."""
    make_node(config)
    with open_stores(config) as stores:
        corpus = small_corpus(FolderBlobs(config.home / "blobs"), Label.PRIVATE, SystemClock().now())
        stores.corpora.add(corpus)
    run = new_run(wanted, corpus, SystemClock())
    process = forked.Process(target=_begin, args=(config, run))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{run.id} could not be begun")
    return run.id


def differences(world: World, found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Between what is and what is due: at the place, in `found`, and of the run itself."""
    with open_stores(world.config()) as stores:
        run, segments = stores.runs.get(world.run), stores.runs.segments(world.run)
        steps = steps_of(stores, run)
    own = {
        "adapter": (run.artifact, expected_adapter(CORPUS, STEPS)),
        "steps": (steps, list(range(1, STEPS + 1))),
        "ends of segments": ([s.end.step for s in segments if s.end], [FIRST_STEPS, STEPS]),
        "keys left here": (names(world.home, "**/segment.key"), []),
    }
    return [f"{name}: {is_} instead of {due}" for name, (is_, due) in {**own, **found}.items() if is_ != due]


def parts_of(home: Path, clock: Clock | None = None) -> Parts:
    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        return digest_file(out / "adapter" / "adapter_model.safetensors")

    return Parts(
        archive=build_fake_trainer, finish=finish, blobs=FolderBlobs(home / "blobs"), clock=clock or SystemClock()
    )


def quick(training: Training) -> Training:
    """One that looks after its segments more often than a real one has to."""
    training.coordinator.follower.poll_every = timedelta(milliseconds=20)
    return training


def steps_of(stores: Stores, run: Run) -> list[int]:
    events = [event for segment in stores.runs.segments(run.id) for event in stores.runs.events(segment.key)]
    return [int(event["step"]) for event in events if event["kind"] == "step"]


def names(root: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


def _begin(config: Config, run: Run) -> None:
    with open_training(config, parts_of(config.home)) as training:
        training.runs.begin(run)


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
