"""Whoever stays with a segment: how long it waits in a place's queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from elias.config import Config
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.run import RunState, Segment, SegmentState
from elias.ports.backend import Bundle, Status
from elias.services.follow import LONGEST_QUEUE, Follower
from elias.services.next_move import counts_as_failure
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import small_corpus
from elias.testing.nouns import a_run
from elias.testing.places.world import START, WorldClock
from elias.wiring.stores import Stores, open_stores
from elias_trainer.contract import FailureKind


class Queue:
    """A place where nobody's turn comes."""

    name = "queue"

    def __init__(self, polls: int = 0) -> None:
        """It says that it has cancelled only when it was polled so often after that."""
        self.cancelled: list[str] = []
        self.polls = polls

    def offers(self, need: Need) -> list[Offer]:
        return []

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        return key

    def poll(self, handle: str) -> Status:
        self.polls -= handle in self.cancelled
        if handle in self.cancelled and self.polls < 0:
            return Status(state=SegmentState.CANCELLED)
        return Status(state=SegmentState.PENDING, note="waits for its turn")

    def fetch(self, handle: str, into: Path) -> None:
        pass

    def cancel(self, handle: str) -> None:
        self.cancelled.append(handle)


class Passing(threading.Event):
    """Waits pass on the given clock, five minutes at least; ends what would go on for ever."""

    def __init__(self, clock: WorldClock) -> None:
        super().__init__()
        self._clock, self._left = clock, 200

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.sleep(LONGEST_QUEUE / 12)
        self._left -= 1
        return self._left < 0


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(Config(home=tmp_path)) as opened:
        opened.corpora.add(small_corpus(FolderBlobs(tmp_path / "blobs"), Label.PUBLIC, START))
        yield opened


def test_one_that_waits_in_vain_is_taken_back_and_that_is_no_failure(stores):
    run, clock, place, asked = a_run(), WorldClock(), Queue(), []
    stores.runs.add(run)
    segment = Segment(run=run.id, number=1, backend="queue", handle="one", started_at=START)
    stores.runs.put_segment(segment)

    def is_in_vain() -> bool:
        asked.append(clock.now())
        return len(asked) == 2

    follower = Follower(runs=stores.runs, clock=clock, poll_every=LONGEST_QUEUE / 12, stopping=Passing(clock))
    status = follower.follow(place, segment, is_in_vain=is_in_vain)
    assert asked == [START + LONGEST_QUEUE, START + 2 * LONGEST_QUEUE] and place.cancelled == ["one"]
    assert stores.runs.get(run.id).state is RunState.WAITING
    assert status.state is SegmentState.CANCELLED and status.failure.kind is FailureKind.CAPACITY
    ended = Segment(run=run.id, number=1, backend="queue", state=status.state, failure=status.failure)
    assert not counts_as_failure(ended)


def test_one_taken_back_by_a_place_that_is_slow_to_say_so_is_still_no_failure(stores):
    run, clock, place, answers = a_run(), WorldClock(), Queue(polls=20), [True, False, False]
    stores.runs.add(run)
    segment = Segment(run=run.id, number=1, backend="queue", handle="one", started_at=START)
    stores.runs.put_segment(segment)
    follower = Follower(runs=stores.runs, clock=clock, poll_every=LONGEST_QUEUE / 12, stopping=Passing(clock))
    status = follower.follow(place, segment, is_in_vain=lambda: answers.pop(0))
    assert clock.now() > START + 2 * LONGEST_QUEUE and place.cancelled == ["one"]
    assert status.failure.kind is FailureKind.CAPACITY
