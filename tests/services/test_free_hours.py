"""How many hours of a quota are kept for runs without a budget, and who leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.plan import Plan
from elias.domain.run import Bounds, Run
from elias.errors import NotFound
from elias.services.free_hours import LATELY, LEAST, FreeHours
from elias.services.plan import Ask, next_segment
from elias.services.planner.outlook import Outlook, plan_ahead
from elias.services.planning import HOPE, Planning
from elias.services.spend import EMPTY, Purse
from elias.testing.nouns import a_run
from elias.units import Money
from tests.services.planner.conftest import HOUR, NOW, kaggle, place, rented
from tests.services.planner.test_next_segment import sight

DAY = timedelta(days=1)
LOCAL, RENTED = place("local").offer, rented().offer
SIZE = 6 * HOUR


class Store:
    """Each run takes six hours of Kaggle."""

    def __init__(self, *runs: Run) -> None:
        self.runs, self.found = self, list(runs)

    def list(self) -> Sequence[Run]:
        return self.found

    def get(self, corpus: str) -> str:
        if corpus == "gone":
            raise NotFound(f"no corpus {corpus}", fix="elias corpus list")
        return corpus

    def whole(self, run: Run, corpus: str, offers: Sequence[Offer]) -> Sequence[Offer]:
        return [replace(offer, likely_span=SIZE) for offer in offers]


def run(name: str, ago: timedelta, **changes: object) -> Run:
    fields = {"id": name, "created_at": NOW - ago, "strategy": "hybrid", "label": Label.SHARED, "bounds": Bounds()}
    return replace(a_run(), **(fields | changes))


RICH = run("rich", timedelta(0), bounds=Bounds(budget=Money.usd(20)))
FIRST = run("first", 14 * DAY, bounds=Bounds(budget=Money.usd(1)))
"""So that two weeks have been seen."""
EACH_WEEK = (run("one", 12 * DAY), run("two", 3 * DAY))


def outlook(
    asks: Run = RICH, left: timedelta = 30 * HOUR, refreshes_in: timedelta = 5 * DAY, steps: int = 300
) -> Outlook:
    offer = kaggle(left=left, longest=None, refreshes_at=NOW + refreshes_in).offer
    sights = [sight(LOCAL, 6000, steps), sight(offer, 60, steps), sight(RENTED, 30, steps)]
    return Outlook(run=asks, now=NOW, sights=sights, budget=asks.bounds.budget)


def less(ahead: Outlook, *runs: Run) -> Outlook:
    store = Store(FIRST, *runs)
    return FreeHours(foresight=store, corpora=store, purse=EMPTY).less(ahead)


def kaggle_of(ahead: Outlook) -> Offer:
    return next(s.offer for s in ahead.sights if s.offer.backend == "kaggle")


def test_while_nobody_came_without_a_budget_nothing_is_kept():
    ahead = outlook()
    assert less(ahead) is ahead and less(ahead, RICH) is ahead


def test_what_comes_in_nineteen_weeks_of_twenty_at_most_is_kept_until_the_refresh():
    """One a week: within five days two at most (95 % of Poisson's 0.71), within a day one, within an hour none."""
    for refreshes_in, count in ((5 * DAY, 2), (DAY, 1), (HOUR, 0)):
        found = kaggle_of(less(outlook(refreshes_in=refreshes_in), *EACH_WEEK))
        assert (found.left, found.kept) == (30 * HOUR - count * SIZE, count * SIZE)
    after = next(s.refill for s in less(outlook(), *EACH_WEEK).sights if s.offer.backend == "kaggle")
    assert after == 30 * HOUR - 3 * SIZE, "of a whole week: three at most"


def test_less_than_is_worth_a_start_is_left_alone():
    found = kaggle_of(less(outlook(left=2 * SIZE + LEAST / 2), *EACH_WEEK))
    assert (found.left, found.kept) == (timedelta(0), 2 * SIZE + LEAST / 2)


@pytest.mark.parametrize(
    "other",
    [
        run("old", LATELY + DAY),
        run("secret", DAY, label=Label.SECRET),
        run("at home", DAY, strategy="local"),
        run("without its corpus", DAY, corpus="gone"),
        run("rich too", DAY, bounds=Bounds(budget=Money.usd(5))),
    ],
    ids=lambda other: other.id,
)
def test_nothing_is_kept_for_runs_that_will_not_want_it(other: Run):
    ahead = outlook()
    assert less(ahead, other) is ahead


def test_nothing_is_kept_from_a_run_for_itself():
    poor = run("poor", DAY)
    ahead = outlook(poor)
    assert less(ahead, poor) is ahead


@given(st.integers(0, 12), st.integers(0, 40), st.integers(0, 7 * 24), st.integers(1, 28))
def test_kept_and_left_are_what_there_is_and_no_more_is_kept_as_the_refresh_comes_nearer(
    count: int, left: int, hours: int, days: int
):
    runs = [run(f"run {n}", days * DAY * n / 12) for n in range(count)]
    kept = [kaggle_of(less(outlook(left=left * HOUR, refreshes_in=h * HOUR), *runs)).kept for h in (hours, hours + 5)]
    assert timedelta(0) <= kept[0] <= kept[1] <= left * HOUR or kept[1] > left * HOUR - LEAST
    found = kaggle_of(less(outlook(left=left * HOUR, refreshes_in=hours * HOUR), *runs))
    assert found.left + found.kept == left * HOUR and found.left >= timedelta(0)


def planning(*runs: Run, purse: Purse = EMPTY) -> Planning:
    store = Store(FIRST, *runs)
    return Planning(foresight=store, corpora=store, backends=lambda strategy: {}, purse=purse)


def chosen(ahead: Outlook, plans: Planning, by: datetime) -> Plan:
    ahead = replace(ahead, run=replace(ahead.run, bounds=replace(ahead.run.bounds, by=by)))
    ask = Ask(label=ahead.run.label, now=NOW, budget_left=ahead.budget)
    return plans.modestly(ahead, lambda seen: next_segment(ask, seen))


def test_a_run_with_money_pays_where_the_free_hours_are_kept_and_says_so():
    ahead = outlook(left=10 * HOUR)
    alone = chosen(ahead, planning(), NOW + DAY)
    assert [s.offer.backend for s in alone.segments] == ["kaggle"]
    plan = chosen(ahead, planning(*EACH_WEEK), NOW + DAY)
    assert plan.is_in_time and [s.offer.backend for s in plan.segments] == ["local", "sagemaker"]
    in_a_day = replace(RICH, bounds=replace(RICH.bounds, by=NOW + DAY))
    told = planning(*EACH_WEEK).modestly(replace(ahead, run=in_a_day), plan_ahead)
    [why] = [taken.why for taken in told.not_taken if taken.offer.backend == "kaggle"]
    assert "10.0 h of its quota are kept for runs without a budget" in why


def test_it_takes_them_all_the_same_where_it_would_be_late_without_them():
    broke = replace(RICH, bounds=Bounds(budget=Money.parse("0.10")))
    plan = chosen(outlook(broke, left=10 * HOUR), planning(*EACH_WEEK), NOW + DAY)
    assert plan.is_in_time and plan.segments[0].offer.backend == "kaggle"


def test_a_run_without_hope_leaves_them_and_one_with_some_does_not():
    poor = run("poor", timedelta(0))
    hopeless = chosen(outlook(poor, left=10 * HOUR, steps=3000), planning(*EACH_WEEK), NOW + DAY)
    assert hopeless.is_in_time is False and (hopeless.chance or 0.0) < HOPE
    assert [s.offer.backend for s in hopeless.segments[:1]] == ["local"]
    hopeful = chosen(outlook(poor, left=10 * HOUR), planning(*EACH_WEEK), NOW + DAY)
    assert hopeful.is_in_time and hopeful.segments[0].offer.backend == "kaggle"


def test_who_has_money_by_the_nodes_own_setting_is_not_kept_for():
    store = Store(FIRST, *EACH_WEEK)
    everybody_pays = SimpleNamespace(left=lambda run: Money.usd(3))
    ahead = outlook()
    assert FreeHours(foresight=store, corpora=store, purse=everybody_pays).less(ahead) is ahead


def test_a_node_may_be_told_to_keep_nothing():
    plans = replace(planning(*EACH_WEEK), keeps_free_hours=False)
    assert [s.offer.backend for s in chosen(outlook(left=10 * HOUR), plans, NOW + DAY).segments] == ["kaggle"]
