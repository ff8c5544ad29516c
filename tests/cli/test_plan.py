"""elias plan as a person types it: the table, the curve and the queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elias.cli.shell import run_command
from elias.config import load
from elias.domain.run import RunState
from elias.wiring.train import open_training

CODE = "".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8))


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    (tmp_path / "m.py").write_text(CODE)
    assert elias(f"capture code {tmp_path / 'm.py'}") == 0
    assert elias("corpus build") == 0
    capsys.readouterr()


def elias(line: str) -> int:
    words = line.split()
    return run_command("elias", words[0], words[0], words[1:])


def test_the_whole_run_stands_in_a_table_before_anything_is_spent(capsys):
    assert elias("plan --base tiny --steps 20 --by 30d --budget 5usd") == 0
    table = capsys.readouterr().out
    assert "20" in table and "local" in table and "in time for" in table and "no plan is cheaper" in table
    assert elias("plan --base tiny --steps 20 --by 30d --budget 5usd --json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["is_in_time"] and plan["chance"] >= plan["wanted"] == 0.9 and plan["bound"] == 0
    assert [segment["steps"] for segment in plan["segments"]] == [20]


def test_what_cannot_be_in_time_says_what_would_help(capsys):
    assert elias("plan --base starter --steps 100000 --by 2h") == 0
    told = capsys.readouterr().out
    assert "NOT in time as wanted" in told and "would do:" in told and " later" in told


def test_how_surely_a_deadline_is_to_be_kept_is_the_users_to_say(capsys):
    assert elias("plan --base tiny --steps 20 --by 30d --chance 99% --json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["chance"] >= plan["wanted"] == 0.99
    for unsure in ("sure", "40%", "100%", "95", "nan"):
        assert elias(f"plan --base tiny --steps 20 --by 30d --chance {unsure}") == 2
        assert "fix: give one from 50% to 99%" in capsys.readouterr().err


def test_what_would_help_names_the_option_that_says_it(capsys):
    assert elias("plan --base starter --steps 2000 --by 2h") == 0
    told = capsys.readouterr().out
    option = told.partition("(--by ")[2].partition(")")[0]
    assert elias(f"plan --base starter --steps 2000 --by {option} --json") == 0
    assert json.loads(capsys.readouterr().out)["is_in_time"]


def test_cost_against_deadline_is_a_row_a_point(capsys):
    assert elias("plan --base tiny --steps 20 --what-if --json") == 0
    points = json.loads(capsys.readouterr().out)
    assert points and all(point["expected"] == 0 and point["places"] == ["local"] for point in points)
    assert elias("plan --base tiny --max-minutes 5 --what-if") == 2
    assert elias("plan --base tiny --steps 20 --what-if --by 2d") == 2
    assert "fix: leave out --max-minutes" in capsys.readouterr().err


def test_the_plan_and_the_curve_are_drawn_where_that_is_asked_for(tmp_path, capsys):
    assert elias("plan --base tiny --steps 20 --by 30d --picture -") == 0
    assert "█1" in capsys.readouterr().out
    assert elias(f"plan --base tiny --steps 20 --picture {tmp_path / 'plan.svg'}") == 0
    assert elias(f"plan --base tiny --steps 20 --what-if --json --picture {tmp_path / 'curve.png'}") == 0
    assert json.loads(capsys.readouterr().out.partition("[")[2].join(("[", "")))
    assert (tmp_path / "plan.svg").stat().st_size > 1000 and (tmp_path / "curve.png").stat().st_size > 1000
    assert elias("plan --base tiny --steps 20 --picture plan.gif") == 2
    assert "fix: end its name with .svg or .png" in capsys.readouterr().err


def test_standing_runs_are_planned_one_after_another_on_the_only_place(capsys):
    assert elias("plan --queue") == 3
    assert "no run waits or trains" in capsys.readouterr().err
    _queue_two_runs()
    assert elias("plan --queue --json") == 0
    queue = json.loads(capsys.readouterr().out)
    first, second = sorted(plan["segments"][0]["starts_at"] for plan in queue["plans"])
    assert queue["at_once"] == 1 and first < second and queue["bound"] == 0
    assert elias("plan --queue") == 0
    assert "1 at once; 2 of 2 in time" in capsys.readouterr().out


def _queue_two_runs() -> None:
    from elias.services.runs import Wanted, new_run
    from elias_trainer.contract import BaseModel, Recipe

    with open_training(load()) as training:
        wanted = Wanted(strategy="local", base=BaseModel(reference="tiny"), recipe=Recipe(max_steps=20))
        found = training.stores.corpora.get("latest")
        for _ in range(2):
            run = new_run(wanted, found, training.coordinator.means.clock)
            assert run.state is RunState.QUEUED
            training.stores.runs.add(run)
