"""What the caps of a node mean for a plan that is not begun."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from elias.domain.plan import Plan, PlannedSegment, Raised
from elias.domain.spend import Caps, Room, Usage, Used, rooms
from elias.services.capping import limited_by, raised
from elias.units import FREE, Money
from tests.services.planner.conftest import HOUR, NOW, kaggle, rented

NEEDED = Money.usd("2.875")


def found(usage: Usage | None = None, **caps: Money) -> list[Room]:
    return list(rooms(Caps(**caps), usage or Usage(at=NOW), "run-1"))


def test_the_runs_own_budget_is_raised_where_it_is_what_binds():
    own = (Raised(limit=Money.usd("2.88")),)
    assert raised(found(), None, NEEDED) == raised(found(), Money.usd(1), NEEDED) == own
    assert raised(found(account=Money.usd(20)), Money.usd(1), NEEDED) == own


def test_a_cap_that_binds_is_named_and_a_budget_that_holds_it_is_not():
    assert raised(found(run=Money.usd(1)), Money.usd(15), NEEDED) == (Raised(limit=Money.usd("2.88"), setting="run"),)
    spent = Usage(at=NOW, account=Used(spent=Money.usd(4), reserved=Money.usd(1)))
    assert raised(found(spent, account=FREE), Money.usd(15), NEEDED) == (
        Raised(limit=Money.usd("7.88"), setting="account"),
    )


def test_all_that_binds_is_named_at_once():
    both = raised(found(run=Money.usd(1), account=Money.usd(2)), Money.usd("1.50"), NEEDED)
    assert [limit.setting for limit in both] == [None, "run", "account"]
    assert raised(found(run=Money.usd(1)), None, NEEDED) == (Raised(limit=Money.usd("2.88"), setting="run"),)
    assert [limit.setting for limit in raised(found(account=FREE), None, NEEDED)] == [None, "account"]


def test_a_cap_that_begins_anew_is_no_limit_on_a_whole_run():
    assert raised(found(day=FREE, month=FREE), Money.usd(15), Money.usd(3)) == ()


def paid(day: int, hours: float = 1.0, dollars: str = "0.80") -> PlannedSegment:
    """A segment of a machine at $2 an hour, that many days from noon on."""
    starts = NOW + timedelta(days=day)
    return PlannedSegment(
        offer=rented().offer, starts_at=starts, span=hours * HOUR, reserve=Money.usd(dollars), steps=1
    )


def limits(plan: Plan, usage: Usage | None = None, **caps: Money) -> list[str]:
    return list(limited_by(found(usage, **caps), plan))


SHORTER = "segments that are paid for may be shorter, or wait for the next"


def test_a_plan_that_reserves_more_in_a_day_or_a_month_than_its_cap_says_what_may_come_of_it():
    assert limits(Plan(segments=(paid(3, dollars="3.13"),)), day=Money.usd(1)) == [
        f"the cap of the day is $1.00: {SHORTER} day (elias budget set day 4usd)"
    ]
    thrice = Plan(segments=(paid(0), paid(1), paid(2)))
    assert limits(thrice, day=Money.usd(1), month=Money.usd(2)) == [
        f"the cap of the month is $2.00: {SHORTER} month (elias budget set month 3usd)"
    ]
    assert limits(replace(thrice, budget=Money.usd(2)), month=Money.usd(2)) == []


def test_one_that_goes_over_midnight_counts_on_both_days():
    assert limits(Plan(segments=(paid(0, hours=20), paid(1))), day=Money.usd(1)) != []


def test_what_is_used_counts_today_and_not_tomorrow():
    used = Usage(at=NOW, day=Used(spent=Money.usd("0.20"), reserved=Money.usd("0.10")))
    assert limits(Plan(segments=(paid(0),)), used, day=Money.usd(1)) == [
        f"the cap of the day is $1.00: {SHORTER} day (elias budget set day 2usd)"
    ]
    assert limits(Plan(segments=(paid(1),)), used, day=Money.usd(1)) == []


def test_under_a_cap_that_not_even_the_shortest_segment_fits_nothing_is_promised_for_the_next_day():
    [line] = limits(Plan(segments=(paid(0),)), day=FREE)
    assert (
        line
        == "the cap of the day is $0.00: a segment that the plan pays for would not begin (elias budget set day 1usd)"
    )


def test_a_free_plan_and_the_caps_of_a_whole_run_are_no_matter_of_days():
    free = PlannedSegment(offer=kaggle().offer, starts_at=NOW, span=HOUR)
    assert limits(Plan(segments=(free,)), day=FREE, month=FREE) == []
    assert limits(Plan(segments=(paid(0),)), run=FREE, account=FREE) == []
