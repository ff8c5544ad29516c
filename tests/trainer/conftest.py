"""Jobs on `tiny`, and a quick way to run the real trainer as a process of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from elias_trainer.contract import (
    TINY,
    BaseModel,
    Input,
    Job,
    Recipe,
    Result,
    canonical_json,
    digest_file,
    from_json,
    to_json,
)
from elias_trainer.segment import train

# `tiny` is too small to share out, and several test processes share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

# A trainer that has imported torch and waits; each job runs in a fork of it, which is a process like any other.
# One that is to be held trains as far as the given step and begins no other until it is told to stop or killed.
_FORGE = """
import json, os, resource, sys, time
import elias_trainer.loading
from elias_trainer import loop
from elias_trainer.__main__ import main

def hold(at, attempt=loop._attempt):
    def held(work, step, stop):
        while step >= at and stop.reason is None:
            time.sleep(0.01)
        return attempt(work, step, stop)
    loop._attempt = held

def slow(seconds, mark, loss=loop.batch_loss):
    def slowed(*given):
        open(mark, "w").close()
        time.sleep(seconds)
        return loss(*given)
    loop.batch_loss = slowed

def child(asked):
    os.environ.update(asked["environment"])
    if asked["held_at"] is not None:
        hold(asked["held_at"])
    if asked["slow_s"] is not None:
        slow(asked["slow_s"], asked["mark"])
    if asked["file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["file_bytes"],) * 2)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        code = main(asked["argv"])
    finally:
        sys.stderr.flush()
        os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
    else:
        answer = os.fork() or child(asked)
    print(answer, flush=True)
"""


@dataclass(frozen=True)
class Place:
    """A job's `in/` and `out/`."""

    root: Path
    cache: Path
    job: Job

    @property
    def job_file(self) -> Path:
        return self.root / "in" / "job.json"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def in_step(self) -> Path:
        return self.root / "in-step"

    @property
    def argv(self) -> list[str]:
        return ["train", "--job", str(self.job_file), "--out", str(self.out), "--cache", str(self.cache)]

    def run(self) -> int:
        """In this process."""
        return train(self.job_file, self.out, self.cache)

    def rewrite(self, **changes: Any) -> Place:
        """The same place with fields of its job changed."""
        job = replace(self.job, **changes)
        self.job_file.write_bytes(to_json(job))
        return replace(self, job=job)

    @property
    def result(self) -> Result:
        return from_json(Result, (self.out / "result.json").read_bytes())

    @property
    def events(self) -> list[dict[str, Any]]:
        path = self.out / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def adapter(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.out / "adapter").iterdir()}

    def steps(self) -> dict[int, float]:
        """Step -> loss; of a step that was done twice, the last."""
        return {event["step"]: event["loss"] for event in self.events if event["kind"] == "step"}


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a trainer is to differ from one that is left alone."""

    held_at: int | None = None
    """The step that it does not go beyond."""
    slow_s: float | None = None
    """Added to each micro-batch; while the first one lasts, `in_step` is there already."""
    file_bytes: int | None = None
    """The most that it may write into a file."""


@dataclass(frozen=True)
class Child:
    pid: int
    forge: Forge

    def wait(self) -> int:
        """Its exit code; below zero, the signal that ended it."""
        return self.forge.ask({"wait": self.pid})

    def kill(self, number: int = signal.SIGKILL) -> int:
        os.kill(self.pid, number)
        return self.wait()


class Forge:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def start(self, place: Place, told: Told | None = None, **environment: str) -> Child:
        asked = {"argv": place.argv, "log": str(place.root / "log"), "environment": environment}
        return Child(self.ask(asked | asdict(told or Told()) | {"mark": str(place.in_step)}), self)

    def ask(self, question: Mapping[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=600)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model-cache")


@pytest.fixture
def place(tmp_path: Path, cache: Path) -> Callable[..., Place]:
    """Makes a place: `place(name, segment=…, max_steps=…)`; what is no field of a job is one of its recipe."""

    def make(name: str = "job", **given: Any) -> Place:
        root = tmp_path / name
        corpus = root / "in" / "corpus.jsonl"
        corpus.parent.mkdir(parents=True)
        corpus.write_bytes(given.pop("lines", None) or chats(20))
        of_job = {key: given.pop(key) for key in list(given) if key in Job.__dataclass_fields__}
        recipe = {
            "rank": 4,
            "alpha": 8,
            "dropout": 0.1,
            "sequence_length": 96,
            "batch_size": 2,
            "epochs": 1.0,
            "seed": 7,
        }
        job = Job(
            **{
                "run": "run",
                "segment": "run-0001",
                "base": BaseModel(reference=TINY),
                "corpus": Input(path="corpus.jsonl", digest=digest_file(corpus)),
                "recipe": Recipe(**(recipe | given)),
            }
            | of_job
        )
        made = Place(root, cache, job)
        made.job_file.write_bytes(to_json(job))
        return made

    return make


def chats(count: int) -> bytes:
    """Corpus lines of plain examples."""
    source = random.Random(3)
    return b"".join(canonical_json(_chat(number, source)) + b"\n" for number in range(count))


def pairs(count: int) -> bytes:
    """Corpus lines of preference pairs."""
    source = random.Random(4)
    lines = [_chat(number, source) for number in range(count)]
    for line in lines:
        answer = line["messages"].pop()["content"]
        line |= {"chosen": answer, "rejected": "    pass  # later"}
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def _chat(number: int, source: random.Random) -> dict[str, Any]:
    factor, noun = source.randrange(2, 10), source.choice(["cats", "files", "steps"])
    return {
        "id": f"example-{number}",
        "session": "session",
        "source": "code",
        "messages": [
            {"role": "user", "content": f"def times_{factor}({noun}):"},
            {"role": "assistant", "content": f"    return {noun} * {factor}"},
        ],
        "weight_ppm": 1_000_000 if number % 3 else 250_000,
    }
