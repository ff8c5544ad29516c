"""A schedule on a node's own stores: its sessions become a corpus, its bounds the run's, and a model obeys the gate."""

from __future__ import annotations

import json
import struct
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.adapters.clock import SystemClock
from elias.cli.schedule import app
from elias.config import Config
from elias.config.schema import Budget
from elias.domain.run import Run, RunState, Segment
from elias.errors import EliasError
from elias.services.deploy import DeployService
from elias.services.launch import Means, Policy
from elias.services.route import Route
from elias.services.schedule import Scheduler
from elias.testing.echo_engine import EchoEngine
from elias.testing.nouns import a_verdict, an_artifact
from elias.units import Money
from elias.wiring.capture import make_capture
from elias.wiring.corpus import open_blobs
from elias.wiring.schedule import add_schedules, schedule_book, scheduler, wanted_of
from elias.wiring.stores import Stores, open_engine, open_stores
from elias.wiring.train import Parts, Training, make_training
from elias_trainer.contract import Digest

WEEKLY = Path(__file__).parents[2] / "examples" / "weekly.toml"


class StandingClock(SystemClock):
    """The machine's as it was when this one was made: no schedule comes due while a test looks."""

    def __init__(self) -> None:
        self.made_at = super().now()

    def now(self) -> datetime:
        return self.made_at


@dataclass
class House:
    clock: StandingClock
    config: Config
    stores: Stores
    training: Training
    service: DeployService

    def scheduler(self) -> Scheduler:
        return scheduler(self.config, self.training, self.service)

    def runs(self) -> list[Run]:
        return list(self.stores.runs.list())

    def ends(self, run: Run, *, accepted: bool) -> None:
        """As the coordinator and the judge leave it."""
        artifact = replace(an_artifact(), run=run.id)
        self.stores.models.add_artifact(artifact)
        self.stores.runs.update(run.id, state=RunState.DONE, artifact=artifact.digest)
        reasons = ("it is worse in stage:2",)
        verdict = replace(a_verdict(), candidate=artifact.digest, accepted=accepted, reasons=reasons)
        self.stores.models.add_verdict(verdict)


def none_ends(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
    raise AssertionError("no run is carried out here")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    config, echo = Config(home=tmp_path / "home"), EchoEngine()
    talks = tmp_path / "talks.jsonl"
    pairs = [(f"what is {n}?", f"it is {n}") for n in range(24)]
    lines = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]
    talks.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in lines))
    with open_stores(config) as stores:
        make_capture(config, stores, "chat").take(talks)
        means = Means(
            models=stores.models,
            engines={"only": echo},
            verify=lambda _: tmp_path,
            ask=lambda endpoint, question: "hello",
            has_room=lambda: False,
            logs=tmp_path,
        )
        service = DeployService(means, Policy(default_bases=("small",)), Route())
        clock = StandingClock()
        parts = Parts(archive=write_trainer_archive, finish=none_ends, blobs=open_blobs(config, stores), clock=clock)
        yield House(clock, config, stores, make_training(config, stores, open_engine(config), parts), service)
        service.close()


def add(house: House, name: str, **table: object) -> None:
    schedule_book(house.config).add(name, {"base": "tiny", "strategy": "local", **table}, house.clock.now())
    schedule_book(house.config).ask(name)


def test_it_trains_on_its_own_sessions_within_its_own_bounds_and_begins_once(house: House):
    add(house, "talks", at="02:00", sources=["chat"], hours="3h", budget="2usd", steps=7)
    house.scheduler().tick()
    house.scheduler().tick()
    (run,) = house.runs()
    assert (run.bounds.train_for, run.bounds.budget) == (timedelta(hours=3), Money.usd(2))
    assert (run.recipe.max_steps, run.strategy, run.base.reference) == (7, "local", "tiny")
    corpus = house.stores.corpora.get(run.corpus)
    assert corpus.by_source == {"chat": 24} and run.label == corpus.label


def test_one_without_any_sessions_of_its_kind_ends_with_what_is_missing(house: House):
    add(house, "commits", at="02:00", sources=["git"])
    house.scheduler().tick()
    (firing,) = schedule_book(house.config).firings("commits")
    assert house.runs() == [] and firing.outcome and firing.outcome.startswith("ended:")


def test_what_the_gate_accepts_goes_into_service_once(house: House):
    add(house, "main", at="02:00")
    house.scheduler().tick()
    house.ends(house.runs()[0], accepted=True)
    house.scheduler().tick()
    house.scheduler().tick()
    (deployment,) = house.service.history()
    assert deployment.artifact == house.runs()[0].artifact
    (firing,) = schedule_book(house.config).firings("main")
    assert firing.outcome == f"in service since deployment {deployment.id}"


def test_what_the_gate_refuses_stays_out_with_its_reason(house: House):
    add(house, "main", at="02:00")
    house.scheduler().tick()
    house.ends(house.runs()[0], accepted=False)
    house.scheduler().tick()
    (firing,) = schedule_book(house.config).firings("main")
    assert house.service.history() == [] and "worse in stage:2" in (firing.outcome or "")


def test_every_schedule_of_the_week_asks_for_a_run_that_can_be_begun(house: House):
    tables = tomllib.loads(WEEKLY.read_text())["schedule"]
    book, now = schedule_book(house.config), house.clock.now()
    wanted = {name: wanted_of(house.config, book.add(name, table, now)) for name, table in tables.items()}
    assert {name for name, want in wanted.items() if want.bounds.budget} == {"main"}
    assert {want.strategy for want in wanted.values()} == {"hybrid", "kaggle"}
    assert all(want.bounds.train_for for want in wanted.values())


def test_a_place_that_is_not_ready_is_a_warning_for_all_schedules_that_want_it(house: House):
    done = CliRunner().invoke(app, ["add", "--file", str(WEEKLY)])
    assert done.exit_code == 0 and len(schedule_book(house.config).list()) == 7
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert warning.startswith("warning: kaggle is not ready for foundations, framing,") and "credentials" in warning
    assert "fix: make a token at kaggle.com/settings" in done.stderr


def test_a_cap_below_the_budget_is_a_warning_that_says_how_to_raise_it(house: House):
    config = replace(house.config, budget=Budget(day=Money.usd(500), account=Money.usd(0)))
    tables = {"big": {"at": "02:00", "budget": "500usd", "base": "tiny", "strategy": "sagemaker"}}
    made, doubts = add_schedules(config, tables, house.clock.now())
    assert [schedule.name for schedule in made] == ["big"] == [one.name for one in schedule_book(config).list()]
    place, money = doubts
    assert place.what.startswith("sagemaker is not ready for big: ")
    assert money.what == "big may spend $500.00 each time, and budget.account allows $0.00"
    assert money.fix == "elias budget set account 500.00usd"


def test_a_schedule_that_can_be_carried_out_is_added_without_a_word(house: House):
    tables = {"plain": {"at": "02:00", "base": "tiny", "strategy": "local", "sources": ["git"], "stages": [1, 4]}}
    assert add_schedules(house.config, tables, house.clock.now())[1] == []


def test_a_base_in_this_folder_is_kept_by_its_whole_path(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1))
    assert CliRunner().invoke(app, ["add", "mine", "--at", "02:00", "--base", "own.gguf"]).exit_code == 0
    assert schedule_book(house.config).get("mine").base == str(tmp_path / "own.gguf")


def test_the_commands_add_a_file_list_show_ask_and_remove(house: House):
    shell = CliRunner()

    def answer(*words: str) -> object:
        done = shell.invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.exception
        return json.loads(done.stdout)

    assert len(answer("add", "--file", str(WEEKLY))) == 7  # type: ignore[arg-type]
    assert answer("add", "eager", "--new-sessions", "20")[0]["next"] is None  # type: ignore[index]
    names = [row["name"] for row in answer("list")]  # type: ignore[attr-defined]
    assert names == sorted([*tomllib.loads(WEEKLY.read_text())["schedule"], "eager"])
    assert answer("run-now", "eager") == {"asked": "eager"}
    house.scheduler().tick()
    (firing,) = answer("show", "eager")["firings"]  # type: ignore[index,call-overload]
    assert firing["run"] == house.runs()[0].id
    assert answer("remove", "eager") == {"removed": "eager"}
    assert isinstance(shell.invoke(app, ["show", "eager"]).exception, EliasError)
    assert "main" in shell.invoke(app, ["list"]).stdout
