"""Degraded states come with their cause and leave with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elias.domain.degraded import STILL_WORKS, Degraded, Trouble
from elias.domain.hold import Hold
from elias.domain.spend import Caps, Usage, Used, rooms
from elias.errors import BackendError
from elias.services.troubles import caps_reached, machine_held
from elias.services.weather import Weather
from elias.services.yielding import ON_BATTERY
from elias.units import Money

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DOWN = Degraded(name=Trouble.PLACE_DOWN, about="kaggle", since=NOON, cause="silent", leaves="it answers again")


class HandClock:
    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def sleep(self, span: timedelta) -> None:
        self.moment += span


def test_every_state_says_what_still_works():
    assert set(STILL_WORKS) == set(Trouble)
    assert all("inference" in words for words in STILL_WORKS.values())


def test_a_state_keeps_its_beginning_over_a_restart_and_is_gone_with_its_cause(tmp_path: Path):
    clock, states = HandClock(), [DOWN]

    def weather() -> Weather:
        sources = {"places": lambda now: [replace(state, since=now) for state in states]}
        return Weather(sources, tmp_path / "degraded.json", clock)

    assert [state.since for state in weather().look()] == [NOON]
    clock.sleep(timedelta(hours=1))
    after = weather()
    assert [state.since for state in after.look()] == [NOON]
    states.clear()
    assert after.look() == []
    states.append(DOWN)
    assert [state.since for state in after.look()] == [NOON + timedelta(hours=1)], "it began anew"


def test_while_nobody_can_say_a_state_stays_as_it_was(tmp_path: Path):
    answers: list[bool] = [True, False]

    def source(now: datetime) -> Iterable[Degraded]:
        if answers.pop(0):
            return [DOWN]
        raise BackendError("silent", fix="wait")

    weather = Weather({"places": source, "other": lambda now: []}, tmp_path / "degraded.json", HandClock())
    assert weather.look() == weather.look() == [DOWN]


def test_a_day_that_is_spent_ends_with_the_day_and_an_account_with_a_new_cap():
    usage = Usage(at=NOON, day=Used(spent=Money.usd("4.995")), account=Used(reserved=Money.usd(9)))
    found = list(caps_reached(rooms(Caps(day=Money.usd(5), account=Money.usd(9)), usage, ""), NOON))
    assert [(state.name, state.about, state.until) for state in found] == [
        (Trouble.BUDGET_GONE, "day", datetime(2026, 11, 25, tzinfo=UTC)),
        (Trouble.BUDGET_GONE, "account", None),
    ]
    assert "elias budget set account" in found[1].leaves
    assert list(caps_reached(rooms(Caps(day=Money.usd(6)), usage, ""), NOON)) == []


def test_what_holds_this_machine_is_told_by_its_own_name():
    busy = Hold(why="inference needs this machine: 9 requests; goes on later", since=NOON, until=NOON)
    battery = Hold(why=ON_BATTERY, since=NOON, until=NOON)
    assert [(s.name, s.cause) for s in machine_held([busy, battery])] == [
        (Trouble.INFERENCE_FIRST, "inference needs this machine: 9 requests"),
        (Trouble.ON_BATTERY, "this machine runs on its battery"),
    ]
