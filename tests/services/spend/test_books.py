"""Where the money stands, and whether the providers' bills say the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from elias.domain.run import RunState, SegmentState
from elias.domain.spend import COMPUTE, Caps, Claim, Part
from elias.services.books import Books, Finding
from elias.units import FREE, Money


@pytest.fixture
def books(world):
    return Books(store=world.stores.spend, runs=world.stores.runs, clock=world.clock)


def spend(world, key, run, amount, *, kept=9):
    claim = Claim(key=key, run=run, backend="rented")
    world.stores.spend.reserve(claim, [Part(name=COMPUTE, amount=Money.usd(kept))], Caps(), world.clock.now())
    if amount is not None:
        world.stores.spend.settle(claim, [Part(name=COMPUTE, amount=Money.usd(amount))], world.clock.now())


def test_the_overview_adds_up_by_cap_run_and_backend(world, books):
    world.clock.move_to_noon()
    run = world.run(budget="20")
    spend(world, f"{run.id}-0001", run.id, 3)
    spend(world, f"{run.id}-0002", run.id, None)
    spend(world, "run-gone-0001", "run-gone", 1)
    found = books.overview(Caps(day=Money.usd(10), run=Money.usd(15)))
    day, month, account = found.caps
    assert (day.spent, day.reserved, day.left) == (Money.usd(4), Money.usd(9), FREE) and day.until is not None
    assert (month.limit, month.left, account.spent) == (None, None, Money.usd(4))
    ours, gone = found.runs
    assert (ours.limit, ours.left) == (Money.usd(15), Money.usd(3)) and gone.limit is None
    assert [(b.name, b.spent) for b in found.backends] == [("rented", Money.usd(4))]
    assert [a.claim.key for a in found.open] == [f"{run.id}-0002"]


def test_a_bill_is_compared_name_by_name_and_only_differences_are_written_down_once(world, books):
    long_ago = world.clock.now() - timedelta(days=60)
    for key, amount in (("a-0001", 3), ("a-0002", 3), ("b-0001", None), ("c-0001", 2)):
        spend(world, key, key[0], amount)
    bill = {"a-0001": Money.usd(3), "a-0002": Money.usd(5), "b-0001": Money.usd(1), "stranger": Money.usd(7)}
    found = {one.name: one for one in books.compare("rented", bill, long_ago)}
    assert {name: one.finding for name, one in found.items()} == {
        "a-0001": Finding.SAME,
        "a-0002": Finding.DIFFERS,
        "b-0001": Finding.OPEN,
        "stranger": Finding.UNKNOWN,
        "c-0001": Finding.NOT_BILLED,
    }
    written = {name: books.adjust(one) for name, one in found.items()}
    assert {n: m for n, m in written.items() if m != FREE} == {"a-0002": Money.usd(2), "stranger": Money.usd(7)}
    assert all(books.adjust(one) == FREE for one in books.compare("rented", bill, long_ago))
    assert books.overview(Caps()).caps[-1].spent == Money.usd(3 + 5 + 2 + 7)


def test_what_began_before_that_time_is_left_alone(world, books):
    spend(world, "a-0001", "a", 3)
    later = world.clock.now() + timedelta(days=1)
    [found] = books.compare("rented", {"a-0001": Money.usd(1)}, later)
    assert found.finding is Finding.OUTSIDE and books.adjust(found) == FREE


def test_what_a_standing_run_still_holds_is_asked_after_and_settled_or_given_back(world, books):
    done = world.carry(world.run())
    [segment] = world.segments(done)
    run = world.run()
    lost = replace(segment, run=run.id, state=SegmentState.FAILED, cost=FREE)
    world.stores.runs.put_segment(lost)
    spend(world, lost.key, run.id, None)
    spend(world, f"{run.id}-0002", run.id, None)
    assert books.settle_lost({"rented": world.place}) == [], "a run under way is left to whoever carries it"
    world.stores.runs.update(run.id, state=RunState.FAILED)
    [settled] = books.settle_lost({"rented": world.place})
    assert settled.cost == world.place.cost == world.spent(run) and world.held(run) == FREE
    assert world.segments(run) == [settled]
