"""Two trainers in one run, started by torchrun out of a parcel as on a machine with two GPUs; here on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from elias.adapters.backends.parcels import Destination, make_parcel, open_outbox
from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.domain.label import Label
from elias.ports.backend import Bundle
from elias.testing.waiting import wait_until
from elias_trainer.contract import Digest, Input, Limits, Outcome, Result, digest_file, from_json, tree_digest
from tests.trainer.conftest import Place

MakePlace = Callable[..., Place]
RECIPE = {"batch_size": 2, "accumulation": 2, "dropout": 0.0, "max_steps": 5000, "epochs": 1000.0}
DOUBLED = {**RECIPE, "batch_size": 4, "accumulation": 1}


def carry(made: Place, archive: Path, cache: Path) -> subprocess.Popen[bytes]:
    """`trainer.bin carry --gpus 2`, as the notebook types it."""
    shutil.copyfile(archive, made.root / "in" / "trainer.pyz")
    bundle = Bundle(job=made.job, folder=made.root / "in", label=Label.PUBLIC)
    make_parcel(bundle, made.root / "parcel", Destination())
    folders = [f"--{name}={made.root / name}" for name in ("parcel", "work", "outbox")]
    command = [sys.executable, "-u", str(made.root / "parcel" / "trainer.bin"), "carry", *folders, "--gpus", "2"]
    (made.root / "work").mkdir()
    with (made.root / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_WAIT_POLICY": "PASSIVE"},
        )


def came_home(made: Place) -> tuple[Result, dict[int, float], list[Path]]:
    """The result, the losses by step, and the checkpoints, from the outbox alone."""
    home = made.root / "home"
    open_outbox(made.root / "outbox", home, None)
    result = from_json(Result, (home / "result.json").read_bytes())
    events = [json.loads(line) for line in (home / "events.jsonl").read_bytes().splitlines()]
    losses = {event["step"]: event["loss"] for event in events if event["kind"] == "step"}
    return result, losses, sorted((home / "checkpoint").glob("step-*"))


def steps_so_far(made: Place) -> int:
    path = made.root / "work" / "out" / "events.jsonl"
    return path.read_text().count('"kind":"step"') if path.exists() else 0


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_twice_the_batch_and_go_on_after_a_stop(
    place: MakePlace, tmp_path: Path, cache: Path
) -> None:
    archive = tmp_path / "trainer.pyz"
    write_trainer_archive(archive)
    trainer = digest_file(archive)

    first = place("first", trainer=trainer, **RECIPE)
    child = carry(first, archive, cache)
    wait_until(lambda: steps_so_far(first) >= 2)
    child.send_signal(signal.SIGTERM)
    child.wait(timeout=600)
    result, losses, [checkpoint] = came_home(first)
    assert (result.outcome, result.reason) == (Outcome.PAUSED, "signal")
    assert result.checkpoint is not None and tree_digest(checkpoint) == result.checkpoint.digest
    reached = result.step
    assert sorted(losses) == list(range(1, reached + 1)), "one process writes, and each step once"

    start = Input(path=f"checkpoint/{checkpoint.name}", digest=Digest(result.checkpoint.digest))
    limits = Limits(stop_at_step=reached + 3)
    second = place("second", segment="run-0002", trainer=trainer, checkpoint=start, limits=limits, **RECIPE)
    shutil.copytree(checkpoint, second.root / "in" / start.path)
    assert carry(second, archive, cache).wait(timeout=600) == 0, (second.root / "log").read_text()
    result, more, checkpoints = came_home(second)
    assert (result.started_at_step, result.step) == (reached, reached + 3) and len(checkpoints) == 1

    alone = place("alone", limits=limits, **DOUBLED)
    assert alone.run() == 0
    assert losses | more == pytest.approx(alone.steps(), rel=1e-4)
    assert result.tokens + first_tokens(first) == alone.result.tokens


def first_tokens(made: Place) -> int:
    return from_json(Result, (made.root / "home" / "result.json").read_bytes()).tokens
