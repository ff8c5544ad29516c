"""Stopping, going on, being killed: a chain of segments gives the same bytes as a run left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from elias.testing.waiting import wait_until
from elias_trainer.contract import (
    AtDeadline,
    Digest,
    FailureKind,
    Input,
    Lease,
    Limits,
    Method,
    Outcome,
    tree_digest,
)
from tests.trainer.conftest import Forge, Place, Told, chats

MakePlace = Callable[..., Place]
RECIPE = {"epochs": 2.0, "accumulation": 2, "dropout": 0.1}
"""10 steps over two epochs, the fifth and the tenth of them short."""


@pytest.mark.parametrize("method", [Method.LORA, Method.QLORA, Method.FULL])
def test_a_run_in_three_segments_is_the_run_left_alone(place: MakePlace, method: Method) -> None:
    whole = place("whole", method=method, **RECIPE)
    assert whole.run() == 0
    first = place("first", method=method, limits=Limits(stop_at_step=3), **RECIPE)
    assert first.run() == 0
    second = follow(place, first, "second", method=method, limits=Limits(stop_at_step=6), **RECIPE)
    assert second.run() == 0
    third = follow(place, second, "third", method=method, **RECIPE)
    assert third.run() == 0
    assert third.adapter() == whole.adapter()
    assert first.steps() | second.steps() | third.steps() == whole.steps()
    assert (first.result.outcome, first.result.reason) == (Outcome.PAUSED, "stop_at_step")
    assert (third.result.started_at_step, third.result.step) == (6, 10)
    assert first.result.tokens + second.result.tokens + third.result.tokens == whole.result.tokens


def test_checkpoints_are_a_chain(place: MakePlace) -> None:
    first = place("first", limits=Limits(stop_at_step=1), **RECIPE)
    assert first.run() == 0
    second = follow(place, first, "second", limits=Limits(stop_at_step=2), **RECIPE)
    assert second.run() == 0
    made = second.result.checkpoint
    assert made is not None
    assert made.digest == tree_digest(second.out / made.path)
    assert manifest(first)["parent"] is None
    assert manifest(second)["parent"] == first.result.checkpoint.digest
    assert set(second.result.outputs) == {
        f"{made.path}/{n}" for n in ("manifest.json", "state.json", "state.safetensors")
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_three_times_and_started_again_gives_the_same_adapter(
    place: MakePlace, forge: Forge, number: int
) -> None:
    recipe = {"max_steps": 30, "dropout": 0.1}
    whole = place("whole", **recipe)
    assert whole.run() == 0
    made = place("ended", limits=Limits(checkpoint_every_s=0.05), **recipe)
    moments = random.Random(5)
    for at_step in (4, 12, 20):
        # However late the end comes, this life gets no further than the next one has to.
        child = forge.start(made, Told(held_at=at_step + 7))
        # Past a step, then anywhere: in a step, in a checkpoint, between them.
        reaches(made, at_step)
        pause(moments.uniform(0, 0.1))
        assert child.kill(number) == (-number if number == signal.SIGKILL else 0)
        assert (made.out / "result.json").exists() == (number == signal.SIGTERM)
    assert forge.start(made).wait() == 0
    assert made.adapter() == whole.adapter()
    assert made.steps() == whole.steps()
    assert [event["seq"] for event in made.events] == list(range(len(made.events)))
    assert made.result.tokens == whole.result.tokens
    assert not list(made.out.rglob(".*.part"))


def test_a_finished_segment_started_again_repeats_nothing(place: MakePlace) -> None:
    made = place(max_steps=1)
    assert made.run() == 0
    before = (made.result, made.events)
    assert made.run() == 0
    assert (made.result, made.events) == before


def test_a_second_trainer_leaves_the_first_ones_folder_alone(place: MakePlace, forge: Forge) -> None:
    made = place(max_steps=5000)
    child = forge.start(made, Told(held_at=3))
    reaches(made, 1)
    assert made.run() == 5
    assert not (made.out / "result.json").exists()
    assert child.kill(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_pauses_with_a_checkpoint(place: MakePlace, forge: Forge, number: int) -> None:
    made = place(max_steps=5000)
    child = forge.start(made, Told(held_at=5))
    reaches(made, 2)
    assert child.kill(number) == 0
    assert_paused(made, "signal")


@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_a_signal_while_torch_is_imported_pauses_too(place: MakePlace, after_s: float) -> None:
    made = place(max_steps=5000)
    with (made.root / "log").open("wb") as log:
        child = subprocess.Popen([sys.executable, "-m", "elias_trainer", *made.argv], stdout=log, stderr=log)
    wait_until(lambda: catches_sigterm(child.pid))
    pause(0.05 + after_s)
    child.terminate()
    assert child.wait(timeout=600) == 0
    assert (made.result.outcome, made.result.reason) == (Outcome.PAUSED, "signal")


def test_a_step_in_flight_is_left_and_done_again(place: MakePlace, forge: Forge) -> None:
    # The whole epoch is one step, of five minutes and more: it is under way and far from its end.
    made = place(lines=chats(6000), accumulation=3000)
    child = forge.start(made, Told(slow_s=0.1))
    wait_until(made.in_step.exists)
    pause(1.0)
    assert child.kill(signal.SIGTERM) == 0
    assert made.result.outcome is Outcome.PAUSED
    assert (made.result.step, made.steps()) == (0, {})
    assert made.result.checkpoint.step == 0


def test_a_lease_that_nobody_renews_pauses(place: MakePlace, forge: Forge) -> None:
    # One that lapses before the first step, because nobody came to renew it in time, has shown nothing yet.
    for seconds in (3.0, 12.0, 48.0, 192.0):
        made = place(f"{seconds:.0f}s", max_steps=50000, lease=Lease(path="lease", seconds=seconds))
        child, ended = forge.start(made), made.out / "result.json"
        wait_until(lambda made=made, ended=ended: renewed(made) and (bool(made.steps()) or ended.exists()))
        assert child.wait() == 0
        if made.result.step:
            break
    assert_paused(made, "lease")


def test_a_lease_that_is_renewed_does_not(place: MakePlace, forge: Forge) -> None:
    made = place(max_steps=12, lease=Lease(path="lease", seconds=60))
    child = forge.start(made)
    wait_until(lambda: renewed(made) and (made.out / "result.json").exists())
    assert child.wait() == 0
    assert made.result.outcome is Outcome.DONE


def test_the_deadline_pauses(place: MakePlace, forge: Forge) -> None:
    made = beyond_its_first_step(place, forge, AtDeadline.PAUSE)
    assert_paused(made, "deadline")


def test_at_the_deadline_a_last_segment_writes_what_it_has(place: MakePlace, forge: Forge) -> None:
    made = beyond_its_first_step(place, forge, AtDeadline.FINISH)
    result = made.result
    assert (result.outcome, result.reason) == (Outcome.DONE, "deadline")
    assert 0 < result.step < 50000
    assert "adapter_model.safetensors" in made.adapter()


def test_a_deadline_before_the_first_step_leaves_nothing_to_keep(place: MakePlace, forge: Forge) -> None:
    made = place(max_steps=5, limits=Limits(seconds=0.01, at_deadline=AtDeadline.FINISH))
    # Not in this process: what is raised at any moment may be raised while pytest's own garbage is collected.
    assert forge.start(made).wait() == 2
    assert made.result.failure.kind is FailureKind.USER
    assert not (made.out / "adapter").exists()


def test_old_checkpoints_make_room(place: MakePlace) -> None:
    made = place(max_steps=6, limits=Limits(checkpoint_every_s=0, keep_checkpoints=2))
    assert made.run() == 0
    assert sorted(path.name for path in (made.out / "checkpoint").iterdir()) == ["step-00000004", "step-00000005"]
    assert made.result.checkpoint.step == 5


def test_a_torn_newest_checkpoint_falls_back_to_the_one_before(place: MakePlace) -> None:
    whole = place("whole", max_steps=6)
    assert whole.run() == 0
    made = place("torn", max_steps=6, limits=Limits(checkpoint_every_s=0, stop_at_step=4))
    assert made.run() == 0
    torn = made.out / "checkpoint" / "step-00000004" / "state.safetensors"
    os.truncate(torn, torn.stat().st_size - 1)
    again = made.rewrite(limits=Limits())
    assert again.run() == 0
    assert again.adapter() == whole.adapter()
    warnings = [event["message"] for event in again.events if event["kind"] == "warning"]
    assert any(str(torn) in message for message in warnings)


def test_a_torn_last_line_of_events_is_mended(place: MakePlace) -> None:
    made = place(max_steps=3, limits=Limits(stop_at_step=1))
    assert made.run() == 0
    with (made.out / "events.jsonl").open("ab") as stream:
        stream.write(b'{"kind":"step","se')
    again = made.rewrite(limits=Limits())
    assert again.run() == 0
    assert [event["seq"] for event in again.events] == list(range(len(again.events)))


def follow(place: MakePlace, before: Place, name: str, **given: object) -> Place:
    """The next segment's place, holding the checkpoint that `before` ended with."""
    last = before.result.checkpoint
    made = place(name, segment=f"run-{name}", checkpoint=Input(path=last.path, digest=Digest(last.digest)), **given)
    shutil.copytree(before.out / last.path, made.root / "in" / last.path)
    return made


def manifest(made: Place) -> dict[str, object]:
    return json.loads((made.out / made.result.checkpoint.path / "manifest.json").read_bytes())


def assert_paused(made: Place, reason: str) -> None:
    result = made.result
    assert (result.outcome, result.reason) == (Outcome.PAUSED, reason)
    assert result.step > 0
    assert result.checkpoint.step == result.step
    assert tree_digest(made.out / result.checkpoint.path) == result.checkpoint.digest
    assert made.events[-1]["kind"] == "ended"


def beyond_its_first_step(place: MakePlace, forge: Forge, at_deadline: AtDeadline) -> Place:
    """Ended by a deadline that left it time to train: how soon that is depends on the machine."""
    for seconds in (4.0, 8.0, 32.0, 128.0):
        limits = Limits(seconds=seconds, at_deadline=at_deadline)
        made = place(f"{seconds:.0f}s", max_steps=50000, limits=limits)
        code = forge.start(made).wait()
        if made.result.step > 0:
            assert code == 0
            return made
    raise AssertionError("no step within two minutes")


def reaches(made: Place, step: int) -> None:
    wait_until(lambda: max(made.steps(), default=0) >= step)


def renewed(made: Place) -> bool:
    (made.root / "in" / "lease").touch()
    return True


def catches_sigterm(pid: int) -> bool:
    """Before it does, a signal simply ends it; see proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def pause(seconds: float) -> None:
    """Let another process get to any point of its work."""
    time.sleep(seconds)
