"""The whole walk through the real commands on `tiny`, each of them killed with -9 at a random moment and typed again.

capture -> corpus -> train -> judge -> up -> deploy -> an engine's death. A walk left alone first says what must come
out and how long each room takes, so that the kills fall within it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shell import Shell, some_code, until, words_of

from elias.config import Config
from elias.domain.deployment import Deployment
from elias.testing.ports import free_port
from elias.wiring.stores import open_stores
from elias_trainer.contract import digest_file

TRAIN = (
    "train --base tiny --steps 60 --rank 4 --batch-size 2 --sequence-length 192 --learning-rate 0.002 "
    "--checkpoint-minutes 0.01 --segment-steps 40 --yes"
)
JUDGE = "model judge latest --evaluators heldout_loss"
DEPLOY = "model deploy latest --yes"
LATEST_KILL = 0.95
"""Of the time that a room takes when it is left alone."""
TRIES = 5
"""A process that was faster than its killer is started again; so often at most."""


@dataclass(kw_only=True)
class Walks:
    """Walk after walk in homes of their own, until so many kills have hit."""

    folder: Path
    random: random.Random
    killed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Room -> what it takes when it is left alone."""
    kills: int = 0
    scraps: int = 0
    """Half-written files that killed processes left; none of them may ever be taken for data."""

    def run(self, kills: int) -> int:
        """The number of walks."""
        self.kills = kills
        some_code(self.folder / "session.py")
        alone = self._walk(Walk(walks=self, shell=self._shell("alone"), is_disturbed=False))
        number = 0
        while alone and self.killed.total() < kills:
            number += 1
            found = self._walk(Walk(walks=self, shell=self._shell(f"walk-{number}"), is_disturbed=True))
            if not found:
                break
            self.wrong += [
                f"walk {number}: {name} is {found[name]}, left alone it is {value}"
                for name, value in alone.items()
                if found[name] != value
            ]
        return number

    def _walk(self, walk: Walk) -> dict[str, Any]:
        """What came out; empty when it did not come to its end. Whatever it left running is ended."""
        try:
            return walk.run()
        except (RuntimeError, TimeoutError) as error:
            self.wrong.append(f"{walk.shell.home.name}: {error}")
            return {}
        finally:
            walk.shell.kill_all()

    def _shell(self, name: str) -> Shell:
        return Shell(home=self.folder / name, environment={"ELIAS_TRAINING_BASE": "starter"})


@dataclass(kw_only=True)
class Walk:
    walks: Walks
    shell: Shell
    is_disturbed: bool

    def run(self) -> dict[str, Any]:
        """What came out of every room, in terms that are the same for each walk."""
        self.shell.answer("init")
        data = str(self.shell.home.parent / "session.py")
        rooms: dict[str, Callable[[], Any]] = {
            "capture": lambda: self.typed("capture", f"capture code {data}"),
            "corpus": lambda: self.typed("corpus", "corpus build --heldout-share 0.25"),
            "train": self.train,
            "judge": lambda: self.typed("judge", JUDGE, allowed=(0, 4)),
            "node": self.node,
        }
        answers = {}
        for name, room in rooms.items():
            began = time.monotonic()
            answers[name] = room()
            if not self.is_disturbed:
                self.walks.seconds.setdefault(name, time.monotonic() - began)
        self.walks.wrong += [f"left running: {line}" for line in self.shell.left_running()]
        self.check_files()
        return {
            "sessions": sorted(found["id"] for found in self.shell.answer("session", "list")),
            "corpora": [found["digest"] for found in self.shell.answer("corpus", "list")],
            "runs": [found["state"] for found in self.shell.answer("run", "list")],
            "models": [found["digest"] for found in self.shell.answer("model", "list")],
            "verified": self.shell.answer("model", "verify")["digest"],
            "verdict": [answers["judge"]["accepted"], answers["judge"]["comparisons"]],
            "in service": answers["node"],
        }

    # Rooms 1 to 6: commands that end by themselves

    def typed(self, room: str, line: str, allowed: tuple[int, ...] = (0,)) -> Any:
        """A command's answer; disturbed, it was killed at least once before it came to its end."""
        words = line.split()
        for _ in range(TRIES if self.is_disturbed else 0):
            if not self.wants_kill() or self.kill(room, self.shell.start(*words), self.moment(room)):
                break
        return self.shell.answer(*words, allowed=allowed)

    def train(self) -> Any:
        """Killed up to three times; resumed each time, for a run that has begun is never begun again."""
        for _ in range(self.walks.random.randint(2, 3) if self.is_disturbed else 0):
            if not self.wants_kill():
                break
            child = self.shell.start(*self.train_words())
            if not self.lives(child, self.moment("train")):
                break
            self.kill_training(child)
        runs = self.shell.answer("run", "list")
        is_over = bool(runs) and runs[0]["state"] == "done"
        if not is_over:
            self.shell.answer(*self.train_words())
        self.check_run()
        return None

    def train_words(self) -> list[str]:
        return ["run", "resume", "latest"] if self.shell.answer("run", "list") else TRAIN.split()

    def kill_training(self, child: subprocess.Popen[str]) -> None:
        """The coordinator, the trainer, or all: then whoever is left may go on to the end."""
        trainers = [p.pid for p in self.shell.processes() if p.pid != child.pid and "train" in words_of(p)]
        victim = self.walks.random.choice(["coordinator", "trainer", "all"]) if trainers else "coordinator"
        if victim != "trainer":
            child.kill()
        for pid in trainers if victim != "coordinator" else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.walks.killed[f"train: {victim}"] += 1
        child.communicate()
        if victim == "trainer" and child.returncode != 0:
            self.wrong(f"the coordinator left with {child.returncode} when its trainer died")

    # Room 7: the node, which stays

    def node(self) -> Any:
        """The model that serves at the end; it is always the one that the books name."""
        port = str(free_port())
        if self.is_disturbed and self.wants_kill():
            self.kill("node: up", self.shell.start("up", "--foreground", "--port", port), self.moment("up"))
            self.nobody_is_left("a node that was killed while it started")
        began = time.monotonic()
        up = self.shell.answer("up", "--port", port)
        self.walks.seconds.setdefault("up", time.monotonic() - began)
        if self.is_disturbed and self.wants_kill():
            self.kill_while_deploying(int(up["process"]))
            self.nobody_is_left("a node that was killed while it deployed")
            self.shell.answer("up", "--port", port)
            self.serves_what_is_recorded()
        began = time.monotonic()
        if self.recorded().artifact is None:
            self.shell.answer(*DEPLOY.split())
        self.walks.seconds.setdefault("deploy", time.monotonic() - began)
        if self.is_disturbed and self.wants_kill():
            self.kill_engine()
        serving = self.serves_what_is_recorded()
        self.shell.answer("down")
        return serving

    def kill_while_deploying(self, node: int) -> None:
        child = self.shell.start(*DEPLOY.split(), "--json")
        self.lives(child, self.moment("deploy"))
        os.kill(node, signal.SIGKILL)
        self.walks.killed["node: deploy"] += 1
        error = child.communicate()[1]
        if child.returncode not in (0, 2, 5):
            self.wrong(f"deploy left with {child.returncode} when its node died: {error[-300:]}")

    def kill_engine(self) -> None:
        engine = int(self.shell.answer("status")["in_service"]["process"])
        os.kill(engine, signal.SIGKILL)
        self.walks.killed["engine"] += 1

        def is_back() -> bool:
            now = self.shell.answer("status")["in_service"]
            return bool(now and now["answers"] and now["process"] != engine)

        until(is_back, "the engine's return")

    def serves_what_is_recorded(self) -> tuple[str, str | None]:
        recorded, serving = self.recorded(), self.shell.answer("status")["in_service"]
        if (serving["base"], serving["artifact"]) != (recorded.base, recorded.artifact):
            self.wrong(f"{serving['model']} serves, the books name {recorded.base} with {recorded.artifact}")
        if serving["deployment"] != recorded.id:
            self.wrong(f"deployment {serving['deployment']} serves, the books name {recorded.id}")
        return serving["base"], serving["artifact"]

    def recorded(self) -> Deployment:
        with open_stores(Config(home=self.shell.home)) as stores:
            return next(iter(stores.models.deployments()))

    # What must hold

    def check_run(self) -> None:
        """Segments follow one another from checkpoint to checkpoint, and none was begun twice."""
        run = self.shell.answer("run", "show", "latest")
        events = self.shell.answer("run", "logs", "latest")
        reached = 0
        for number, segment in enumerate(run["segments"], start=1):
            start = segment["start"]["step"] if segment["start"] else 0
            if (segment["number"], start) != (number, reached):
                self.wrong(f"{segment['key']} starts at step {start}, the newest checkpoint is at {reached}")
            reached = max(reached, segment["end"]["step"] if segment["end"] else 0)
            kinds = Counter(event["kind"] for event in events[segment["key"]])
            if kinds["started"] > 1 or len({e["seq"] for e in events[segment["key"]]}) != kinds.total():
                self.wrong(f"{segment['key']} was begun {kinds['started']} times")

    def check_files(self) -> None:
        """A blob is what its name says; a half-written file has a name that nothing reads."""
        files = [path for path in self.shell.home.rglob("*") if path.is_file()]
        self.walks.scraps += sum(path.name.endswith(".part") for path in files)
        for path in files:
            is_blob = "blobs" in path.parts and not path.name.endswith(".part")
            if is_blob and path.name != digest_file(path).hex:
                self.wrong(f"{path} is not what its name says")

    def nobody_is_left(self, after: str) -> None:
        for line in self.shell.left_running():
            self.wrong(f"left running by {after}: {line}")

    def wrong(self, what: str) -> None:
        self.walks.wrong.append(f"{self.shell.home.name}: {what}")

    # Kills

    def wants_kill(self) -> bool:
        return self.walks.killed.total() < self.walks.kills

    def moment(self, room: str) -> float:
        return self.walks.random.uniform(0.0, LATEST_KILL * self.walks.seconds[room])

    def lives(self, child: subprocess.Popen[str], seconds: float) -> bool:
        """Whether it is still at work after so long; its output is read when it is not."""
        try:
            child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def kill(self, kind: str, child: subprocess.Popen[str], after_s: float) -> bool:
        """Whether it was still there to be killed."""
        if not self.lives(child, after_s):
            return False
        child.kill()
        child.communicate()
        self.walks.killed[kind] += 1
        return True
