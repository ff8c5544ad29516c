"""The seed's weekly table, carried out for two weeks by the real scheduler and coordinator over simulated places."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from elias.domain.run import RunState
from elias.testing.places.world import HOUR, START, WEEK
from elias.units import FREE

BENCH = Path(__file__).parents[2] / "bench"
START_UP = timedelta(minutes=10)


@pytest.fixture(scope="module")
def weeks() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("schedule_weeks")


@pytest.fixture(scope="module")
def house(weeks: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    house = weeks.open_house(tmp_path_factory.mktemp("weeks") / "node", 1, [weeks.Week(), weeks.EVENTFUL])
    house.live_weeks()
    yield house
    house.close()


@pytest.fixture(scope="module")
def rows(weeks: Any, house: Any) -> Any:
    """Of the two weeks themselves."""
    return [row for row in weeks.rows(house) if row.firing.slot < START + 2 * WEEK]


def test_each_schedule_is_due_once_a_week_at_its_time_and_begins_then(weeks: Any, house: Any, rows: Any):
    due = [(row.firing.slot, row.schedule.name) for row in rows]
    assert len(due) == 2 * len(house.tables) == 14
    assert [(at + WEEK, name) for at, name in due[:7]] == due[7:]
    for row in rows:
        assert row.firing.slot.time() == row.schedule.at and f"{row.firing.slot:%a}".lower() in row.schedule.days
        if row.segments:
            assert timedelta(0) <= row.segments[0].submitted_at - row.firing.slot <= weeks.LOOKS


def test_each_trains_on_its_own_sessions_where_it_may_and_ends_within_its_hours(weeks: Any, house: Any, rows: Any):
    known = {session.id: session for session in house.stores.sessions.select()}
    for row in (row for row in rows if row.run):
        found = [known[session] for session in row.firing.sessions]
        if row.schedule.name != "main":
            assert {(s.source, s.stage) for s in found} == {weeks.KINDS[row.schedule.name]}
        assert row.run.state is RunState.DONE and row.run.bounds.train_for == row.schedule.hours
        assert {s.backend for s in row.segments} <= ({"kaggle", "sagemaker"} if row.schedule.budget else {"kaggle"})
        assert row.hours * HOUR <= row.schedule.hours + START_UP


def test_kaggles_week_and_the_budget_are_kept_and_the_ledger_is_what_the_places_charge(
    weeks: Any, house: Any, rows: Any
):
    assert all(hours * HOUR <= weeks.KAGGLE_A_WEEK for hours in weeks.kaggle_hours(house))
    paid = [row for row in rows if row.spent > FREE]
    assert [row.schedule.name for row in paid] == ["main"] and paid[0].spent <= paid[0].schedule.budget
    assert paid[0].places[0] == "kaggle", "what was left of Kaggle's hours comes first"
    billed = house.places["sagemaker"].billed(START, house.clock.now())
    accounts = {account.claim.key: account for account in house.stores.spend.accounts()}
    assert {key: account.spent for key, account in accounts.items() if account.spent > FREE} == dict(billed)
    assert all(account.reserved == FREE for account in accounts.values())


def test_each_is_left_out_judged_refused_or_put_into_service_as_its_table_says(house: Any, rows: Any):
    outcomes = {(row.schedule.name, (row.firing.slot - START) // WEEK): row.firing.outcome for row in rows}
    assert outcomes["framing", 1] == "left out: 0 new sessions, 1 needed"
    for name in ("main", "commits"):
        assert outcomes[name, 1] == "trained, and kept out by the gate: heldout_loss: worse than the base"
    (deployment,) = house.service.history()
    first = next(row for row in rows if row.schedule.name == "main")
    assert outcomes["main", 0] == f"in service since deployment {deployment.id}"
    assert deployment.artifact == first.run.artifact
    others = {o for key, o in outcomes.items() if key not in {("framing", 1), ("main", 0), ("main", 1), ("commits", 1)}}
    assert others == {"trained and accepted; it is not put into service by itself"}
