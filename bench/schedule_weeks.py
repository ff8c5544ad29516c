"""The seed system's week over simulated places: `examples/weekly.toml`, carried out for weeks by the real scheduler.

Real are the scheduler, the coordinator, its stores and its ledger, the corpora, the gate and the deployments. Places
and the clock are simulated (docs/planner-bench.md), nothing is trained, and what the judge says of a model is given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from planner_world import Simulation

from elias.cli.output import emit_table
from elias.config import Config
from elias.config.schema import Training as TrainingSettings
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.run import HYBRID, Run, Segment
from elias.domain.schedule import Firing, Schedule
from elias.domain.session import Event, Session, session_id
from elias.ports.backend import Backend
from elias.ports.durable import Steps
from elias.services.deploy import DeployService
from elias.services.estimate import forecast_new
from elias.services.launch import Means, Policy
from elias.services.route import Route
from elias.services.schedule import ScheduleBook, Scheduler
from elias.testing.echo_engine import EchoEngine
from elias.testing.nouns import a_verdict, an_artifact
from elias.testing.places.kinds import RENTED, LikeKaggle, LikeSageMaker
from elias.testing.places.place import SimulatedPlace, TrueSpeed
from elias.testing.places.world import HOUR, START, World, WorldClock
from elias.units import FREE, Money
from elias.wiring.corpus import open_blobs
from elias.wiring.guard import GuardedPlaces
from elias.wiring.schedule import schedule_book, scheduler
from elias.wiring.train import Training
from elias_trainer.contract import STARTER, Digest, Job

WEEKLY = Path(__file__).parents[1] / "examples" / "weekly.toml"
LOOKS = timedelta(minutes=30)
"""Between two looks of the scheduler, which the node has every ten seconds."""
KAGGLE_A_WEEK = 20 * HOUR
"""As `[backends.kaggle] weekly_cap` has it."""
STEPS = 40_000
"""Of every run, since the places count steps: more than three hours of two T4s hold, and fewer than six."""
OLD, NEW = 24, 4
"""Sessions of each kind that are there at first, and that come each week."""
KINDS: Mapping[str, tuple[str, int | None]] = {
    "foundations": ("code", 1),
    "framing": ("code", 2),
    "systems": ("code", 3),
    "finishing": ("code", 4),
    "commits": ("git", None),
    "talks": ("chat", None),
}
"""Schedule -> the source and stage of its sessions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Week:
    """What happens besides: which of the schedules has nothing new, whose model the judge finds worse."""

    idle: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()


EVENTFUL = Week(idle=("framing",), worse=("main", "commits"))


@dataclass(kw_only=True)
class House(Simulation):
    """A node without a GPU, its schedules and its service."""

    weeks: Sequence[Week] = ()

    def __post_init__(self) -> None:
        Simulation.__post_init__(self)
        self.config = Config(home=self.home, training=TrainingSettings(base=STARTER, heldout_share=0.2))
        self.blobs = open_blobs(self.config, self.stores)
        tables = tomllib.loads(WEEKLY.read_text())["schedule"]
        self.tables = {name: table | {"steps": STEPS} for name, table in tables.items()}
        self.book: ScheduleBook = schedule_book(self.config)
        for name, table in self.tables.items():
            self.book.add(name, table, self.clock.now())
        self.stores.sessions.add(_sessions(range(OLD), KINDS, START))
        echo = EchoEngine()
        means = Means(
            models=self.stores.models,
            engines={"only": echo},
            verify=lambda _: self.home,
            ask=lambda endpoint, question: "hello",
            has_room=lambda: False,
            logs=self.home,
        )
        self.service = DeployService(means, Policy(default_bases=("small",)), Route())

    def backends(self, strategy: str) -> Mapping[str, Backend]:
        names = self.allowed if strategy == HYBRID else (strategy,)
        return {name: self.places[name] for name in names}

    def finish(self, run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        """With the judge's word, which is given here."""
        digest = Simulation.finish(self, run, segments, out)
        name, number = self.firing_of(run)
        is_worse = name in self.weeks[number].worse
        artifact = replace(an_artifact(), digest=digest, run=run.id, corpus=run.corpus, created_at=self.clock.now())
        self.stores.models.add_artifact(artifact)
        verdict = replace(a_verdict(f"verdict of {run.id}"), candidate=digest, corpus=run.corpus)
        if is_worse:
            verdict = replace(verdict, accepted=False, reasons=("heldout_loss: worse than the base",))
        self.stores.models.add_verdict(verdict)
        return digest

    def firing_of(self, run: Run) -> tuple[str, int]:
        """Its schedule and its week."""
        found = next(f for name in self.tables for f in self.book.firings(name) if f.run_id == run.id)
        return found.schedule, (found.slot - START) // timedelta(weeks=1)

    def live_weeks(self) -> None:
        """All of them, and two days more for what is still under way."""
        node = self.live()
        training = Training(
            stores=self.open,
            engine=node.engine,
            coordinator=node.coordinator,
            runs=node.runs,
            places=GuardedPlaces(config=self.config, clock=self.clock, places=self.backends),
            unmade=dict,
        )
        node.engine.register("schedules/1", self._looks(scheduler(self.config, training, self.service)))
        node.engine.launch()
        node.engine.start("schedules/1", "schedules")
        node.engine.join()
        node.engine.stop()

    def _looks(self, looking: Scheduler) -> Callable[[Steps, str], None]:
        def look(steps: Steps, key: str) -> None:
            for number, week in enumerate(self.weeks):
                if number:
                    fresh = {name: kind for name, kind in KINDS.items() if name not in week.idle}
                    first = OLD + number * NEW
                    self.stores.sessions.add(_sessions(range(first, first + NEW), fresh, self.clock.now()))
                ends = START + timedelta(weeks=number + 1, days=2 * (number + 1 == len(self.weeks)))
                while self.clock.now() < ends:
                    looking.tick()
                    steps.sleep(LOOKS)

        return look

    def close(self) -> None:
        self.service.close()
        Simulation.close(self)


def open_house(home: Path, seed: int, weeks: Sequence[Week]) -> House:
    world, clock = World(seed=seed, weeks=len(weeks)), WorldClock()
    common: dict[str, Any] = {"world": world, "clock": clock, "truth": _truth(world)}
    places: dict[str, SimulatedPlace] = {
        "kaggle": LikeKaggle(name="kaggle", least=KAGGLE_A_WEEK, extra=0 * HOUR, **common),
        "sagemaker": LikeSageMaker(name="sagemaker", kinds=RENTED, **common),
    }
    return House(
        home=home, world=world, specs=(), places=places, clock=clock, allowed=tuple(places), weeks=weeks,
    )  # fmt: skip


def _truth(world: World) -> Callable[[Job, Offer], TrueSpeed]:
    """The model's own word, off by what is drawn for each run."""

    def truth(job: Job, offer: Offer) -> TrueSpeed:
        need = Need(base=job.base, recipe=job.recipe, label=Label.PRIVATE, corpus_bytes=1000)
        told, off = forecast_new(need, offer), 1 + world.random("job", job.run).uniform(-0.1, 0.1)
        return TrueSpeed(
            step_s=round(told.step.likely * off, 4),
            load_s=round(told.overheads.start_up.likely, 3),
            precision="bf16" if "A10G" in offer.accelerator else "fp16",
        )

    return truth


def _sessions(numbers: range, kinds: Mapping[str, tuple[str, int | None]], at: datetime) -> Iterator[Session]:
    """Each as long as a sequence may be."""
    for name, (source, stage) in kinds.items():
        for number in numbers:
            asked, solved = f"{name} {number}?", f"+ {name} {number} " + "word " * 900
            events = (Event(kind="task", text=asked), Event(kind="solution", text=solved))
            if source == "chat":
                events = (
                    Event(kind="message", role="user", text=asked),
                    Event(kind="message", role="assistant", text=solved),
                )
            yield Session(
                id=session_id(source, events), source=source, title=f"{name} {number}", taken_at=at, events=events,
                origin={"path": name}, stage=stage,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One time that a schedule was due, and what came of it."""

    schedule: Schedule
    firing: Firing
    run: Run | None = None
    segments: tuple[Segment, ...] = ()
    hours: float = 0.0
    """Of machines, by the places' own books."""
    spent: Money = FREE
    ended_at: datetime | None = None

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f"{s.backend} {s.offer or ''}".rstrip() for s in self.segments))


def rows(house: House) -> Sequence[Row]:
    """In order of time."""
    sessions = [session for place in house.places.values() for session in place.sessions.values()]
    found: list[Row] = []
    for name in house.tables:
        schedule = house.book.get(name)
        for firing in house.book.firings(name):
            if firing.run is None:
                found.append(Row(schedule=schedule, firing=firing))
                continue
            segments = tuple(house.stores.runs.segments(firing.run))
            found.append(
                Row(
                    schedule=schedule,
                    firing=firing,
                    run=house.stores.runs.get(firing.run),
                    segments=segments,
                    hours=sum(s.hours(house.clock.now()) for s in sessions if s.job.run == firing.run),
                    spent=Money(sum(s.cost.micro_usd for s in segments)),
                    ended_at=segments[-1].ended_at if segments else None,
                )
            )
    return sorted(found, key=lambda row: row.firing.slot)


def kaggle_hours(house: House) -> Sequence[float]:
    """Of each week, by the place's own books."""
    place = house.places["kaggle"]
    begun = [(s.begins_at, s.hours(house.clock.now())) for s in place.sessions.values() if s.begins_at]
    count = (house.clock.now() - START) // timedelta(weeks=1) + 1
    return [sum(h for at, h in begun if (at - START) // timedelta(weeks=1) == week) for week in range(count)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weeks", type=int, default=2)
    given = parser.parse_args()
    weeks = [Week() if number % 2 == 0 else EVENTFUL for number in range(given.weeks)]
    with tempfile.TemporaryDirectory() as home:
        house = open_house(Path(home) / "node", given.seed, weeks)
        house.live_weeks()
        emit_table(("due", "schedule", "began", "ended", "hours", "cost", "places", "what came of it"),
                   [_cells(row) for row in rows(house)], empty="nothing was due")  # fmt: skip
        taken = ", ".join(f"{hours:.1f}" for hours in kaggle_hours(house)[: given.weeks])
        print(f"\nKaggle's hours, of {KAGGLE_A_WEEK / HOUR:.0f} a week: {taken}")
        house.close()
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    began = row.segments[0].submitted_at if row.segments else None
    return (
        f"{row.firing.slot:%a %d %b %H:%M}", row.schedule.name, f"{began:%H:%M}" if began else "-",
        f"{row.ended_at:%H:%M}" if row.ended_at else "-", f"{row.hours:.1f}", str(row.spent), ", ".join(row.places),
        row.firing.outcome or f"under way: {row.run.state if row.run else 'not begun'}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
