"""Kills the coordinator of a run on the emulated Kaggle with -9 at each request that it makes, and counts what was lost
or done twice. A run is two chained segments with private data; each kill has a run of its own, which another process
then goes on with.

    python bench/kaggle_kills.py                       every request of the undisturbed run, at each of three moments
    python bench/kaggle_kills.py --requests 1-9,14     some of them
    python bench/kaggle_kills.py --moments reached     one of: unsent, reached (no answer yet), answered (not acted on)

Prints one JSON line; exits 1 when a step, a push or an upload was lost or repeated, or anything was left behind.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.config.schema import Training as TrainingConfig
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, RunState, Segment
from elias.services.runs import Wanted, new_run
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS, small_corpus
from elias.testing.fake_trainer import build_fake_trainer, expected_adapter, fake_base
from elias.testing.kaggle_emulator import Disk, KaggleEmulator
from elias.units import Clock
from elias.wiring.attest import make_node
from elias.wiring.stores import Stores, open_stores
from elias.wiring.train import Parts, Training, open_training
from elias_trainer.contract import Digest, Recipe, digest_file

STEPS, FIRST_STEPS = 24, 14
MOMENTS = ("unsent", "reached", "answered")
PATIENCE_S = 90.0
forked = multiprocessing.get_context("fork")
"""Each process of a node begins as a copy of this one, which has imported everything and started no thread."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", help="such as 1-9,14; by default all")
    parser.add_argument("--moments", default=",".join(MOMENTS))
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="elias-kaggle-kills-"))
    os.environ |= {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": str(home / "config")}
    os.environ.pop("KAGGLE_API_TOKEN", None)
    import_everything()
    kills = Kills(home)
    report = kills.run(_numbers(given.requests) if given.requests else None, given.moments.split(","))
    print(json.dumps(report))
    if report["wrong"]:
        print(f"kept for a look: {home}", file=sys.stderr)
        return 1
    shutil.rmtree(home)
    return 0


def import_everything() -> None:
    import dbos  # noqa: F401 # a second saved in each process
    import kaggle.api.kaggle_api_extended  # noqa: F401

    if threading.active_count() > 1:
        raise SystemExit("an import has started a thread: processes cannot be copied from here")


@dataclass
class Kills:
    home: Path
    wrong: list[str] = field(default_factory=list)
    landed: Counter[str] = field(default_factory=Counter)
    calls: dict[int, str] = field(default_factory=dict)
    """Of the undisturbed run: the call that each request was."""

    def run(self, numbers: Sequence[int] | None, moments: Sequence[str]) -> dict[str, Any]:
        began = time.monotonic()
        requests = self.one(None)
        self.calls = {number: request["call"] for number, request in enumerate(requests, start=1)}
        chosen = sorted(self.calls) if numbers is None else [n for n in numbers if n in self.calls]
        for number in chosen:
            for moment in moments:
                self.one(Death(number=number, moment=moment))
        return {
            "bench": "kaggle.kills",
            "where": "emulated",
            "requests": len(self.calls),
            "calls": dict(Counter(self.calls.values())),
            "tried": len(chosen) * len(moments),
            "killed": self.landed.total(),
            "moments": dict(self.landed),
            "wrong": self.wrong,
            "seconds": round(time.monotonic() - began, 1),
        }

    def one(self, death: Death | None) -> list[dict[str, Any]]:
        """One run, killed or left alone, checked; the requests that Kaggle received."""
        what = f"killed with request {death.number} {death.moment}" if death else "left alone"
        folder = self.home / what.replace(" ", "-")
        world = World.prepare(folder)
        with Served(world.emulated):
            if death:
                self.landed[death.moment] += carried(world, death) == -signal.SIGKILL
            code = carried(world, None)
            found = [] if code == 0 else [f"the process that goes on with it ended with {code}"]
        requests = world.emulated.disk.requests()
        found += world.faults()
        self.wrong += [f"{what}: {fault}" for fault in found]
        if not found:
            shutil.rmtree(folder)
        return requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """Of the process that makes the request, which it counts from 1."""

    number: int
    moment: str


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A node with a run that is to begin, and the Kaggle that it knows."""

    home: Path
    script: str
    run: str
    emulated: KaggleEmulator

    @classmethod
    def prepare(cls, folder: Path) -> World:
        home, script = folder / "node", folder / "template.py"
        home.mkdir(parents=True)
        script.write_text(as_script(template_text()))
        emulated = KaggleEmulator(folder / "kaggle")
        config = config_of(home, emulated.url, str(script))
        make_node(config)
        with open_stores(config) as stores:
            corpus = small_corpus(FolderBlobs(home / "blobs"), Label.PRIVATE, SystemClock().now())
            stores.corpora.add(corpus)
        run = new_run(wanted(STEPS, segment_steps=FIRST_STEPS), corpus, SystemClock())
        return cls(home=home, script=str(script), run=_in_a_process(_begin, config, run), emulated=emulated)

    def config(self) -> Config:
        return config_of(self.home, self.emulated.url, self.script)

    def faults(self) -> list[str]:
        """What is not as after a run that nothing disturbed."""
        with open_stores(self.config()) as stores:
            run, segments = stores.runs.get(self.run), stores.runs.segments(self.run)
            steps = steps_of(stores, run)
        disk = self.emulated.disk
        sent = Counter(request["call"] for request in disk.requests())
        found = {
            "adapter": (run.artifact, expected_adapter(CORPUS, STEPS)),
            "steps": (steps, list(range(1, STEPS + 1))),
            "ends of segments": ([s.end.step for s in segments if s.end], [FIRST_STEPS, STEPS]),
            "kernels pushed": (sent["SaveKernel"], 2),
            "datasets made": (sent["CreateDataset"], 3),  # the run's, and a key for each segment
            "versions added": (sent["CreateDatasetVersion"], 1),
            "left on Kaggle": (_names(disk.root, "kernels/*/*") + _names(disk.root, "datasets/*/*"), []),
            "keys left here": (_names(self.home, "**/segment.key"), []),
        }
        return [f"{name}: {is_} instead of {due}" for name, (is_, due) in found.items() if is_ != due]


class Served:
    """The emulator in a process of its own, since it needs threads and this process may have none."""

    def __init__(self, emulated: KaggleEmulator) -> None:
        self._stop = forked.Event()
        self._process = forked.Process(target=self._serve, args=(emulated,))

    def _serve(self, emulated: KaggleEmulator) -> None:
        with emulated:
            self._stop.wait()

    def __enter__(self) -> None:
        self._process.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join()


def carried(world: World, death: Death | None) -> int | None:
    """The exit code of a coordinator's process; None when it had to be stopped because nothing came of it."""
    process = forked.Process(target=carry, args=(world.config(), world.run, death, world.emulated.disk))
    process.start()
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def carry(config: Config, run_id: str, death: Death | None, disk: Disk) -> None:
    """What a node does: becomes the engine, and goes on with the run until it has ended."""
    if death:
        Hook(death, disk).install()
    with open_training(config, parts_of(config.home)) as training:
        quick(training).launch()
        while not (run := training.stores.runs.get(run_id)).state.is_final:
            if run.state is RunState.FAILED:
                sys.exit(f"failed: {run.reason}")
            time.sleep(0.02)


class Hook:
    """Ends this process as by -9 at one of its requests."""

    def __init__(self, death: Death, disk: Disk) -> None:
        self._death = death
        self._disk = disk
        self._count = 0
        self._lock = threading.Lock()
        self._mine = threading.local()
        """The number of the request that a thread is at."""

    def install(self) -> None:
        """Around what crosses the wire, in the libraries that the official client uses."""
        import requests
        from urllib3.connection import HTTPConnection

        send, answer = requests.Session.send, HTTPConnection.getresponse

        def counted(session: Any, request: Any, **options: Any) -> Any:
            with self._lock:
                self._count += 1
                self._mine.number = self._count
            self._die_if("unsent")
            response = send(session, request, **options)
            self._die_if("answered")
            return response

        def watched(connection: Any) -> Any:
            if self._is_it("reached"):
                while len(self._disk.requests()) < self._death.number:
                    time.sleep(0.002)  # until Kaggle has it
                self._die_if("reached")
            return answer(connection)

        requests.Session.send = counted  # type: ignore[method-assign] # the vendor's, to count
        HTTPConnection.getresponse = watched  # type: ignore[method-assign]

    def _is_it(self, moment: str) -> bool:
        return self._death.moment == moment and getattr(self._mine, "number", 0) == self._death.number

    def _die_if(self, moment: str) -> None:
        if self._is_it(moment):
            os.kill(os.getpid(), signal.SIGKILL)


class EmulatedClock:
    """The time of the emulated Kaggle, which a test moves on by weeks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def now(self) -> Any:
        return self._disk.now()

    def sleep(self, span: timedelta) -> None:
        time.sleep(span.total_seconds())


def config_of(home: Path, url: str, template: str, **settings: Any) -> Config:
    quick = {
        "session_limit": "20m",
        "margin": "5s",
        "retry_wait": "0.05s",
        "poll_every": "0.2s",
        "stale_wait": "0.05s",
        "settle": "0.3s",
        "base_url": url,
        "template": template,
    }
    training = TrainingConfig(checkpoint_every=timedelta(seconds=0.5))
    return Config(home=home, training=training, backends={"kaggle": quick | settings})


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


def wanted(steps: int, **bounds: Any) -> Wanted:
    return Wanted(
        strategy="kaggle", base=fake_base(step_s=0.01), recipe=Recipe(max_steps=steps), bounds=Bounds(**bounds)
    )


def steps_of(stores: Stores, run: Run) -> list[int]:
    events = [event for segment in stores.runs.segments(run.id) for event in stores.runs.events(segment.key)]
    return [int(event["step"]) for event in events if event["kind"] == "step"]


def _begin(config: Config, run: Run) -> None:
    with open_training(config, parts_of(config.home)) as training:
        training.runs.begin(run)


def _in_a_process(what: Callable[[Config, Run], None], config: Config, run: Run) -> str:
    process = forked.Process(target=what, args=(config, run))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{run.id} could not be begun")
    return run.id


def _names(root: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
