"""The coordinator carries a run to its end, through pauses, failures and cuts."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from elias.adapters.backends.local import LocalBackend
from elias.adapters.clock import SystemClock
from elias.domain.run import RunState, SegmentState, Wish
from elias.ports.backend import BackendContext, Status
from elias.services.follow import Stopping
from elias.testing.fake_trainer import fake_base
from elias.testing.journal import CutOff, JournalSteps
from elias.testing.waiting import wait_until
from elias_trainer.contract import FailureKind

LONG = timedelta(minutes=30)
"""A lease that no stall of this process outlasts."""


def once_it_steps(world, run, act):
    """Call `act` when the first step of `run` is known, however busy the machine is."""

    def wait():
        end = time.monotonic() + 600
        while time.monotonic() < end:
            segments = world.stores.runs.segments(run.id)
            if any(e["kind"] == "step" for s in segments for e in world.stores.runs.events(s.key)):
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=wait, daemon=True).start()


def wish(world, run, wanted):
    once_it_steps(world, run, lambda: world.stores.runs.update(run.id, wish=wanted))


def test_a_run_ends_as_an_artifact(world):
    done = world.carry(world.run())
    assert done.state is RunState.DONE and done.artifact is not None and done.node == "test"
    [segment] = world.segments(done)
    assert segment.state is SegmentState.DONE and segment.end.step == 12
    assert [e["step"] for e in world.stores.runs.events(segment.key) if e["kind"] == "step"] == list(range(1, 13))


def test_a_chain_of_segments_gives_the_bytes_of_a_single_one(world):
    alone, chain = world.carry(world.run()), world.carry(world.run(segment_steps=5))
    assert [s.end.step for s in world.segments(chain)] == [5, 10, 12]
    assert [s.start.step if s.start else 0 for s in world.segments(chain)] == [0, 5, 10]
    assert chain.artifact == alone.artifact


def test_cutting_it_off_at_any_step_and_going_on_changes_nothing_and_repeats_nothing(world):
    alone = world.carry(world.run(segment_steps=6))
    for kept in (True, False):
        run, journal, lives = world.run(segment_steps=6), [], 0
        while world.stores.runs.get(run.id).state is not RunState.DONE:
            steps = JournalSteps(journal)
            steps.cut_after, steps.cut_before_it_is_kept = 0 if kept or lives % 2 else 1, not kept
            lives += 1
            with suppress(CutOff):
                world.coordinator().carry(steps, run.id)
        assert lives > 4
        done = world.stores.runs.get(run.id)
        assert done.artifact == alone.artifact
        assert [s.number for s in world.segments(done)] == [1, 2]
        for segment in world.segments(done):
            started = [e for e in world.stores.runs.events(segment.key) if e["kind"] == "started"]
            assert len(started) == 1, "a segment was started twice"


def test_a_pause_keeps_the_work_and_resuming_ends_with_the_same_bytes(world):
    alone = world.carry(world.run(steps=30))
    run = world.run(steps=30, base=world.held(20))
    wish(world, run, Wish.PAUSE)
    paused = world.carry(run, lease=LONG)
    assert paused.state is RunState.PAUSED
    reached = world.segments(run)[-1].end.step
    assert 0 < reached < 30 and paused.reason == f"paused at step {reached}"
    world.let_go()
    world.stores.runs.update(run.id, wish=Wish.GO)
    done = world.carry(run)
    assert done.state is RunState.DONE and done.artifact == alone.artifact
    assert world.segments(run)[1].start.step == reached


def test_a_cancelled_run_keeps_its_checkpoint(world):
    run = world.run(steps=100_000)
    wish(world, run, Wish.CANCEL)
    cancelled = world.carry(run, lease=LONG)
    assert cancelled.state is RunState.CANCELLED
    [segment] = world.segments(run)
    assert segment.state is SegmentState.CANCELLED and segment.end is not None
    assert (world.home / "runs" / run.id / segment.end.path / "manifest.json").exists()


def test_a_mistake_of_the_user_ends_the_run_at_once_with_the_reason(world):
    failed = world.carry(world.run(base=fake_base(fail="user@3")))
    assert failed.state is RunState.FAILED and "step 3" in failed.reason
    assert len(world.segments(failed)) == 1


def test_a_place_that_fails_is_tried_again_from_the_newest_checkpoint(world, monkeypatch):
    run = world.run(base=fake_base(die_at=5))
    monkeypatch.setattr("elias.services.next_move.FIRST_WAIT", timedelta(milliseconds=1))
    failed = world.carry(run, checkpoint_every=timedelta(0))
    segments = world.segments(run)
    # the first one left step 4; the next ones never got further, which five times over is enough
    assert failed.state is RunState.FAILED and "no progress" in failed.reason
    assert [s.end.step if s.end else 0 for s in segments] == [4, 0, 0, 0, 0, 0]
    assert all(s.failure.kind is FailureKind.INFRASTRUCTURE for s in segments)
    assert all(s.start.step == 4 for s in segments[1:])


def test_a_run_gets_the_time_it_was_given_and_ends_with_what_was_reached(world):
    run = world.run(steps=100_000, train_for=timedelta(seconds=4), segment=timedelta(seconds=2.4))
    done = world.carry(run)
    assert done.state is RunState.DONE and done.artifact is not None
    assert len(world.segments(run)) >= 2
    assert 0 < world.segments(run)[-1].end.step < 100_000


def test_a_changed_checkpoint_is_refused_by_name(world):
    run = world.run(steps=40, segment_steps=5)
    steps = JournalSteps([])
    steps.cut_after = 3  # plan, submit, follow, collect: the first segment is home
    with pytest.raises(CutOff):
        world.coordinator().carry(steps, run.id)
    state = next(Path(world.home, "runs", run.id, "segments", "0001", "out").rglob("state.json"))
    data = bytearray(state.read_bytes())
    data[30] ^= 1
    state.write_bytes(data)
    failed = world.carry(run)
    assert failed.state is RunState.FAILED
    assert "step-00000005" in failed.reason and "fix:" in failed.reason


def test_an_adapter_that_came_home_changed_is_made_again(world):
    run = world.run()
    steps = JournalSteps([])
    steps.cut_after = 3
    with pytest.raises(CutOff):
        world.coordinator().carry(steps, run.id)
    adapter = world.home / "runs" / run.id / "segments/0001/out/adapter/adapter_model.safetensors"
    good = adapter.read_bytes()
    adapter.unlink()
    adapter.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = world.carry(run)
    assert done.state is RunState.DONE
    assert len(world.segments(run)) == 2
    again = world.home / "runs" / run.id / "segments/0002/out/adapter/adapter_model.safetensors"
    assert again.read_bytes() == good


def test_a_finished_run_keeps_its_last_checkpoint_and_no_older_one(world):
    run = world.run(segment_steps=5)
    world.carry(run)
    left = sorted(p.name for p in (world.home / "runs" / run.id).rglob("step-*"))
    assert left == ["step-00000012"]
    assert not list((world.home / "backends").rglob("step-*"))


def test_a_corpus_that_is_gone_fails_the_run_with_a_fix(world):
    run = world.run()
    (world.home / "blobs" / world.corpus.train.hex).unlink()
    failed = world.carry(run)
    assert failed.state is RunState.FAILED and "fix:" in failed.reason


def test_stopping_the_engine_leaves_the_segment_to_whoever_goes_on(world):
    run = world.run(steps=30, base=world.held(20))
    coordinator, journal = world.coordinator(lease=LONG), []
    once_it_steps(world, run, coordinator.stop)
    with pytest.raises(Stopping):
        coordinator.carry(JournalSteps(journal), run.id)
    assert [name for name, _ in journal] == ["plan", "submit"]
    assert not world.segments(run)[0].state.is_final
    world.let_go()
    done = world.carry(run, journal)
    assert done.state is RunState.DONE and len(world.segments(run)) == 1


def test_with_nobody_to_renew_its_lease_the_trainer_pauses(world):
    run = world.run(steps=100_000)
    coordinator = world.coordinator(lease=timedelta(seconds=2))
    once_it_steps(world, run, coordinator.stop)
    with pytest.raises(Stopping):
        coordinator.carry(JournalSteps([]), run.id)
    key, place = world.segments(run)[0].key, world.backends("local")["local"]
    wait_until(lambda: place.poll(key).state.is_final)
    assert place.poll(key).state is SegmentState.PAUSED


class Watched(LocalBackend):
    """Its segment as the store has it, at each poll; the trainer is let go once that is shown as training."""

    def poll(self, handle: str) -> Status:
        self.seen.append(self.look())
        if self.seen.count(SegmentState.RUNNING) == 1 and self.seen[-1] is SegmentState.RUNNING:
            self.let_go()
        return super().poll(handle)


def test_a_segment_that_trains_is_shown_so_before_it_ends(world):
    run = world.run(base=world.held(6))
    world.place = place = Watched(BackendContext(name="local", node="test", home=world.home / "place", settings={},
                                                 clock=SystemClock()))  # fmt: skip
    place.seen, place.look, place.let_go = [], lambda: world.segments(run)[0].state, world.let_go
    assert world.carry(run, lease=LONG).state is RunState.DONE
    assert place.seen[0] is SegmentState.PENDING and SegmentState.RUNNING in place.seen
    assert world.segments(run)[0].state is SegmentState.DONE
