"""What a plan tells a person: its chance, what may delay it, and what to type for a better one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elias.cli.plan_chart import chart_of, deadline_words
from elias.cli.plan_print import print_plan
from elias.domain.plan import Loosens, Plan, Raised, Relaxation
from elias.services.planner.single import plan_run, waits_for
from elias.units import Money
from tests.services.planner.conftest import NOW, ask, days, pace, place, problem


def test_what_may_delay_a_plan_is_a_line_each(capsys: pytest.CaptureFixture[str]):
    print_plan(Plan(segments=(), limited_by=("the cap of the day is $1.00: …",)))
    assert capsys.readouterr().out == "limit: the cap of the day is $1.00: …\n"


def test_a_plan_says_one_chance_to_be_in_time_wherever_it_is_told(capsys: pytest.CaptureFixture[str]):
    plan = plan_run(problem([place("local")], asked := ask(10, {"local": pace(60)}, deadline=days(1))), asked)
    plan = replace(plan, chance=0.9296, segments=tuple(replace(s, chance=0.9296) for s in plan.segments))
    print_plan(plan)
    told = capsys.readouterr().out + deadline_words(chart_of([plan], NOW)) + waits_for(plan)
    assert told.count("92%") == 4 and "93%" not in told


def advice(raised: tuple[Raised, ...], capsys: pytest.CaptureFixture[str]) -> str:
    helps = Relaxation(loosens=Loosens.BUDGET, words="$1.88 more", budget=Money.usd("2.875"), raised=raised)
    print_plan(Plan(segments=(), relaxations=(helps,)))
    return capsys.readouterr().out


def test_more_money_is_an_option_of_the_run_or_a_cap_of_the_node(capsys: pytest.CaptureFixture[str]):
    own, cap = Raised(limit=Money.usd("2.88")), Raised(limit=Money.usd("7.88"), setting="account")
    assert advice((own,), capsys) == "would do: $1.88 more (--budget 2.88usd)\n"
    assert advice((cap,), capsys) == "would do: $1.88 more (elias budget set account 7.88usd)\n"
    assert advice((own, cap), capsys).endswith("(--budget 2.88usd and elias budget set account 7.88usd)\n")
