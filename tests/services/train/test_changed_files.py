"""A file of the run that changes between two segments stops it, named, with the exit code of a failed verification."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from elias.domain.run import Run
from elias.services.runs import error_of
from tests.services.train.conftest import World

SEGMENT = Path("segments") / "0001"


def one_segment(world: World) -> Run:
    """A run of two segments, the first of which has come home."""
    run, coordinator = world.run(steps=10, segment_steps=5), world.coordinator()
    assert coordinator.plan_next(run.id, 0) == {"do": "segment", "segment": 1}
    assert coordinator.submit(run.id, 1) is None
    coordinator.collect(run.id, 1, coordinator.follow(run.id, 1))
    return run


@pytest.mark.parametrize(
    "name",
    [
        SEGMENT / "in" / "trainer.pyz",
        SEGMENT / "out" / "checkpoint" / "step-00000005" / "state.json",
        SEGMENT / "out" / "checkpoint" / "step-00000005" / "state.safetensors",
        SEGMENT / "out" / "checkpoint" / "step-00000005" / "manifest.json",
    ],
    ids=lambda path: path.name,
)
def test_a_changed_file_ends_the_run_naming_it_and_the_file_put_back_lets_it_go_on(world: World, name: Path) -> None:
    run = one_segment(world)
    path = world.home / "runs" / run.id / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    stopped = world.carry(run)
    error = error_of(stopped, world.segments(run))
    assert stopped.state == "failed" and len(world.segments(run)) == 1
    assert error.exit_code == 4 and str(path) in error.what
    path.write_bytes(whole)
    assert world.carry(run).state == "done"


def test_a_checkpoint_after_every_step_is_what_zero_asks_for(world: World) -> None:
    run = world.run(steps=4)
    world.stores.runs.update(run.id, checkpoint_every=timedelta(0))
    world.carry(run)
    events = world.stores.runs.events(world.segments(run)[0].key)
    assert {event["step"] for event in events if event["kind"] == "checkpoint"} >= {1, 2, 3}
