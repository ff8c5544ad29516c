"""A guarded place keeps its powers; held or down it is not planned for, and what is under way there goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from elias.adapters.backends.local import LocalBackend
from elias.adapters.clock import SystemClock
from elias.domain.habit import Habit
from elias.domain.hold import Hold
from elias.domain.run import SegmentState
from elias.errors import BackendError
from elias.ports.backend import (
    BackendContext,
    CanForget,
    CanPause,
    HasHoldings,
    HasLog,
    HasQuota,
    NeedsLease,
    RunsHere,
    StreamsEvents,
)
from elias.services.breaker import Breaker
from elias.services.guard import NOT_SEEN, Guarded
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.places.world import WorldClock

LATER = datetime(2099, 1, 1, tzinfo=UTC)
HOLD = Hold(why="inference needs this machine", since=LATER - timedelta(minutes=1), until=LATER)


@pytest.fixture
def place(tmp_path: Path) -> LocalBackend:
    home = tmp_path / "local"
    return LocalBackend(BackendContext(name="local", node="n", home=home, settings={}, clock=SystemClock()))


@pytest.mark.parametrize("power", [CanPause, NeedsLease, StreamsEvents, HasLog, CanForget, RunsHere])
def test_what_a_place_can_its_guard_can(place: LocalBackend, power: type):
    assert isinstance(Guarded("local", place, None), power)


@pytest.mark.parametrize("power", [HasQuota, HasHoldings])
def test_what_a_place_cannot_its_guard_cannot(place: LocalBackend, power: type):
    assert not isinstance(Guarded("local", place, None), power)


def test_a_held_place_says_why_and_until_when_and_what_it_would_offer(place: LocalBackend, tmp_path: Path):
    need = need_of(make_bundle(tmp_path / "b", "run-0001", Wanted()))
    (offer,) = Guarded("local", place, None, lambda: HOLD).offers(need)
    assert (offer.refused, offer.refused_until) == (HOLD.why, LATER)
    assert offer.accelerator == place.offers(need)[0].accelerator


def test_while_it_is_down_nothing_is_sent_on_what_it_never_offered_and_the_rest_goes_on(
    place: LocalBackend, tmp_path: Path
):
    breaker = Breaker("local", tmp_path / "circuit.json", WorldClock())  # it stands: no probe falls due meanwhile
    for _ in range(3):
        breaker.failed("no route to host")
    guarded, bundle = Guarded("local", place, breaker), make_bundle(tmp_path / "b", "run-0001", Wanted())
    (offer,) = guarded.offers(need_of(bundle))
    assert offer.accelerator == NOT_SEEN and "no route to host" in (offer.refused or "")
    with pytest.raises(BackendError, match="down since"):
        guarded.submit("run-0001", bundle, offer)
    assert guarded.poll("run-0001").state is SegmentState.FAILED, "asked, and it knows none"
    guarded.cancel("run-0001")
    assert breaker.circuit().down_since is not None


def test_a_damaged_file_is_a_closed_breaker(tmp_path: Path):
    (tmp_path / "circuit.json").write_text('{"failures": 9')
    assert Breaker("kaggle", tmp_path / "circuit.json", SystemClock()).is_down() is None


def test_when_a_place_is_usually_held_stands_in_its_offers_held_or_not(place: LocalBackend, tmp_path: Path):
    habit, holds = Habit(), [None, HOLD]
    guard = Guarded("local", place, None, lambda: holds[0], lambda: habit)
    need = need_of(make_bundle(tmp_path / "b", "run-0001", Wanted()))
    for _ in range(2):
        assert [offer.habit for offer in guard.offers(need)] == [habit]
        holds.reverse()
    assert [offer.habit for offer in Guarded("local", place, None).offers(need)] == [None]
