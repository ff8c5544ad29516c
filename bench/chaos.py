"""Kills with -9 whatever is at work on the walk, at random moments, and counts what was lost or done twice.

    python bench/chaos.py --kills 100              some 60 in training, as below, and 40 over the whole walk
    python bench/chaos.py --kills 10 --only train  the fake trainer: a run takes seconds, every step leaves its mark
    python bench/chaos.py --kills 10 --only walk   every room from capture to deployment by its real command, on `tiny`
    python bench/chaos.py --kills 10 --real        training with the real trainer on `tiny`, up to the signed artifact

In training a kill hits the coordinator, the trainer, its supervisor, or all of them; on the walk, whichever command is
at work, the node, or its engine (see chaos_walk.py). Prints one JSON line for each part; exits 1 when anything was
lost, repeated, or left running. The seed is printed first: the same seed draws the same victims and delays.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from chaos_walk import Walks

from elias.adapters.clock import SystemClock
from elias.config import Config
from elias.config.schema import Node, Store, Training
from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, RunState, Segment, SegmentState
from elias.errors import Refused
from elias.services.runs import Wanted, new_run
from elias.testing.fake_trainer import build_fake_trainer, fake_base
from elias.wiring import train as wiring
from elias.wiring.attest import make_node
from elias.wiring.corpus import open_blobs
from elias.wiring.stores import open_stores
from elias_trainer.contract import TINY, BaseModel, Digest, Recipe, canonical_json, digest_bytes, digest_file

ADAPTER = "adapter/adapter_model.safetensors"
TRAIN_SHARE = 0.6
"""Of the kills, where both parts are run."""
LEASE = timedelta(minutes=1)
"""Longer than a coordinator takes to be there again after a kill: a trainer that is left alone for so long ends."""
OPEN = (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is trained, and how long it takes."""

    real: bool = False
    steps: int = 120
    segment_steps: int | None = 50
    step_s: float = 0.03
    checkpoint_s: float = 0.15
    longest_life_s: float = 4.0
    """A coordinator is killed after a random time up to this."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=["train", "walk"])
    parser.add_argument("--real", action="store_true", help="the real trainer; implies --only train")
    parser.add_argument("--store", help="a PostgreSQL URL in place of SQLite")
    parser.add_argument("--node", default="chaos", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--carry", type=Path, metavar="HOME", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.carry:
        return carry(config_of(given.carry, given.store, given.node), real=given.real, workers=given.workers)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    reports = []
    if given.only != "walk":
        kills = given.kills if given.only or given.real else round(given.kills * TRAIN_SHARE)
        setting = REAL if given.real else Setting()
        reports.append(kept_if_wrong(lambda home: Chaos(home, setting, random.Random(seed), given.store).run(kills)))
    if given.only != "train" and not given.real:
        kills = given.kills - sum(report["kills"] for report in reports)
        reports.append(kept_if_wrong(lambda home: walk(home, random.Random(seed), max(1, kills))))
    for report in reports:
        print(json.dumps({"bench": "chaos", "seed": seed, **report}))
    return 1 if any(report["wrong"] for report in reports) else 0


def kept_if_wrong(part: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """In a folder of its own, which stays for a look when something was wrong."""
    home = Path(tempfile.mkdtemp(prefix="elias-chaos-"))
    report = part(home)
    if report["wrong"]:
        print(f"kept for a look: {home}", file=sys.stderr)
    else:
        shutil.rmtree(home)
    return report


def walk(home: Path, source: random.Random, kills: int) -> dict[str, Any]:
    began = time.monotonic()
    walks = Walks(folder=home, random=source)
    number = walks.run(kills)
    return {
        "part": "walk",
        "kills": walks.killed.total(),
        "victims": dict(walks.killed),
        "walks": number,
        "scraps": walks.scraps,
        "wrong": walks.wrong,
        "seconds": round(time.monotonic() - began, 1),
    }


REAL = Setting(real=True, steps=240, segment_steps=100, checkpoint_s=0.5, longest_life_s=14.0)


def config_of(home: Path, store: str | None = None, node: str = "chaos") -> Config:
    training = Training(checkpoint_every=timedelta(seconds=0.15), lease=LEASE)
    return Config(home=home, node=Node(name=node), store=Store(url=store), training=training)


def carry(config: Config, *, real: bool, workers: int) -> int:
    """What a node does: becomes the engine, carries every run on, ends when all of them stand."""
    with opened(config, real=real, workers=workers) as training:
        for run in training.stores.runs.list():
            if run.state in (RunState.FAILED, RunState.PAUSED):
                training.runs.resume(run.id)
        while any(run.state in OPEN for run in training.stores.runs.list()):
            with suppress(Refused):  # PostgreSQL may know one that was killed for a moment longer
                training.launch()
            time.sleep(0.1)
    return 0


@contextmanager
def opened(config: Config, *, real: bool, workers: int = 8) -> Iterator[wiring.Training]:
    if real:
        make_node(config)
        with wiring.open_training(config, workers=workers) as training:
            yield training
        return

    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        """In the place of the artifact room, which knows no fake adapter: the bytes, under their digest."""
        with (config.home / "finished.txt").open("a") as stream:
            stream.write(run.id + "\n")
        return digest_file(out / ADAPTER)

    parts = wiring.Parts(archive=build_fake_trainer, finish=finish, blobs=open_blobs(config))
    with wiring.open_training(config, parts, workers=workers) as training:
        yield training


@dataclass
class Chaos:
    home: Path
    setting: Setting
    random: random.Random
    store: str | None = None
    killed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost_steps: list[int] = field(default_factory=list)

    def run(self, kills: int) -> dict[str, Any]:
        began = time.monotonic()
        alone = self.undisturbed()
        runs = 0
        while self.killed.total() < kills:
            run_id = begin_run(self.config, self.setting)
            self.disturb(run_id, kills)
            self.check(run_id, alone)
            runs += 1
        self.wrong += [f"left running: {line}" for line in self.orphans()]
        return {
            "part": "train",
            "kills": self.killed.total(),
            "victims": dict(self.killed),
            "runs": runs,
            "store": "postgresql" if self.store else "sqlite",
            "trainer": "real" if self.setting.real else "fake",
            "lost_steps_max": max(self.lost_steps, default=0),
            "wrong": self.wrong,
            "seconds": round(time.monotonic() - began, 1),
        }

    @property
    def config(self) -> Config:
        return config_of(self.home / "node", self.store)

    def undisturbed(self) -> Digest:
        """The adapter of the same run, left alone."""
        config = config_of(self.home / "alone")
        run_id = begin_run(config, self.setting)
        subprocess.run(self.command(config, store=False), check=True, timeout=600)
        with open_stores(config) as stores:
            run = stores.runs.get(run_id)
            segments = stores.runs.segments(run_id)
        assert run.state is RunState.DONE, run
        return digest_file(adapter_of(config, run, segments))

    def disturb(self, run_id: str, kills: int) -> None:
        deadline = time.monotonic() + 1200
        while self.state(run_id) is not RunState.DONE:
            if time.monotonic() > deadline:
                self.wrong.append(f"{run_id} did not end")
                return
            child = subprocess.Popen(self.command(self.config))
            if self.killed.total() < kills:
                self.kill_someone(child)
            child.wait()

    def kill_someone(self, child: subprocess.Popen[bytes]) -> None:
        """After a while. A trainer's death leaves its coordinator to go on, which is killed in its turn, or not."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(self.random.uniform(0.0, self.setting.longest_life_s))
            return
        victim = self.random.choice(["coordinator", "trainer", "supervisor", "all"])
        targets = {
            "coordinator": [child.pid],
            "trainer": self.pids("train"),
            "supervisor": self.pids("launcher.py"),
            "all": [child.pid, *self.pids("train"), *self.pids("launcher.py")],
        }[victim]
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if targets:
            self.killed[victim] += 1

    def check(self, run_id: str, alone: Digest) -> None:
        with open_stores(self.config) as stores:
            run, segments = stores.runs.get(run_id), stores.runs.segments(run_id)
            events = {segment.key: stores.runs.events(segment.key) for segment in segments}
        if run.state is not RunState.DONE or digest_file(adapter_of(self.config, run, segments)) != alone:
            self.wrong.append(f"{run_id}: the adapter is not that of the run left alone ({run.state})")
        if [s.number for s in segments] != list(range(1, len(segments) + 1)):
            self.wrong.append(f"{run_id}: segments {[s.number for s in segments]}")
        reached = 0
        for segment in segments:
            kinds = Counter(event["kind"] for event in events[segment.key])
            if kinds["started"] > 1:
                self.wrong.append(f"{segment.key} was started {kinds['started']} times")
            if not segment.state.is_final:
                self.wrong.append(f"{segment.key} has not ended")
            start = segment.start.step if segment.start else 0
            if start != reached:
                self.wrong.append(f"{segment.key} starts at step {start}, the newest checkpoint is at {reached}")
            done = max((e["step"] for e in events[segment.key] if e["kind"] == "step"), default=start)
            saved = max((e["step"] for e in events[segment.key] if e["kind"] == "checkpoint"), default=start)
            reached = max(reached, segment.end.step if segment.end else 0)
            if segment.state is not SegmentState.DONE:
                self.lost_steps.append(done - reached)
                if reached < saved:
                    self.wrong.append(f"{segment.key} wrote a checkpoint at {saved}, and {reached} came home")

    def state(self, run_id: str) -> RunState:
        with open_stores(self.config) as stores:
            return stores.runs.get(run_id).state

    def command(self, config: Config, *, store: bool = True) -> list[str]:
        words = [sys.executable, __file__, "--carry", str(config.home)]
        words += ["--real"] if self.setting.real else []
        return words + (["--store", self.store] if self.store and store else [])

    def pids(self, word: str) -> list[int]:
        return [process.pid for process in under(self.home) if any(word in part for part in process.info["cmdline"])]

    def orphans(self) -> list[str]:
        deadline = time.monotonic() + 1.5 * LEASE.total_seconds()
        while (left := under(self.home)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [" ".join(process.info["cmdline"]) for process in left]


def under(home: Path) -> list[psutil.Process]:
    """Every trainer and supervisor that lives and works below `home`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        is_node = "--carry" in words
        if process.info["status"] != psutil.STATUS_ZOMBIE and not is_node and any(str(home) in w for w in words):
            found.append(process)
    return found


def begin_run(config: Config, setting: Setting) -> str:
    with opened(config, real=setting.real) as training:
        run = draw_run(config, training, setting)
        training.runs.begin(run)
        return run.id


def draw_run(config: Config, training: wiring.Training, setting: Setting) -> Run:
    """One that is begun nowhere yet, on a corpus that lies here."""
    base = BaseModel(reference=TINY) if setting.real else fake_base(step_s=setting.step_s)
    recipe = Recipe(max_steps=setting.steps, sequence_length=64, batch_size=2, rank=4)
    wanted = Wanted(
        strategy="local",
        base=base,
        recipe=recipe if setting.real else replace(recipe, rank=1),
        bounds=Bounds(segment_steps=setting.segment_steps),
        checkpoint_every=timedelta(seconds=setting.checkpoint_s),
    )
    return new_run(wanted, add_corpus(config, training), SystemClock())


def add_corpus(config: Config, training: wiring.Training) -> Corpus:
    lines = [
        {
            "id": f"e{n}",
            "session": f"s{n}",
            "source": "chat",
            "messages": [
                {"role": "user", "content": f"What is {n} and {n}?"},
                {"role": "assistant", "content": f"It is {2 * n}."},
            ],
            "weight_ppm": 1_000_000,
        }
        for n in range(40)
    ]
    data = b"".join(canonical_json(line) + b"\n" for line in lines)
    train = open_blobs(config).put(io.BytesIO(data))
    corpus = Corpus(
        digest=digest_bytes(b"chaos"),
        label=Label.SECRET,
        train=train,
        heldout=train,
        train_examples=len(lines),
        heldout_examples=0,
        preference_pairs=0,
        sessions=len(lines),
        by_source={"chat": len(lines)},
        built_at=SystemClock().now(),
    )
    training.stores.corpora.add(corpus)
    return corpus


def adapter_of(config: Config, run: Run, segments: Sequence[Segment]) -> Path:
    return config.home / wiring.RUNS_FOLDER / run.id / "segments" / f"{segments[-1].number:04d}" / "out" / ADAPTER


if __name__ == "__main__":
    sys.exit(main())
