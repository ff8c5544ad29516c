"""Carries schedules out: corpus, run, verdict, deployment, each stage written down before and safe to repeat.

A schedule is a folder below `schedules/`: `schedule.json`, a file for each firing, and `now` where one is asked for.
The run itself is carried by the durable engine; what is here only begins it, once by its name, and looks how it stands.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from elias.domain.run import Run, RunState
from elias.domain.schedule import Firing, Schedule, due_slot, schedule_from
from elias.errors import EliasError, NotFound, Refused, StoreError
from elias.units import Clock, instant, rfc3339
from elias_trainer.contract import write_whole

log = logging.getLogger("elias.schedule")
LOOK_EVERY = timedelta(seconds=10)
EVIDENCE_EVERY = timedelta(hours=1)
"""Between two times that evidence alone makes a schedule due."""


@dataclass(frozen=True, slots=True)
class ScheduleBook:
    """What there is to do and what was done, in files."""

    folder: Path

    def add(self, name: str, table: Mapping[str, Any], now: datetime) -> Schedule:
        """Raises InputError, or Refused where one of that name says something else."""
        made, path = schedule_from(name, table, now), self.folder / name / "schedule.json"
        if path.exists() and json.loads(path.read_bytes())["table"] != dict(table):
            raise Refused(f"there is a schedule {name} already", fix=f"elias schedule remove {name}")
        if path.exists():
            return self.get(name)
        write_whole(path, json.dumps({"created_at": rfc3339(now), "table": dict(table)}).encode())
        return made

    def get(self, name: str) -> Schedule:
        """Raises NotFound, or StoreError for a damaged file."""
        path = self.folder / name / "schedule.json"
        try:
            raw = json.loads(path.read_bytes())
            return schedule_from(name, raw["table"], instant(raw["created_at"]))
        except FileNotFoundError as error:
            raise NotFound(f"there is no schedule {name!r}", fix="elias schedule list") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged: {error}", fix=f"elias schedule remove {name}, then add it") from error

    def list(self) -> Sequence[Schedule]:
        return [self.get(path.parent.name) for path in sorted(self.folder.glob("*/schedule.json"))]

    def remove(self, name: str) -> None:
        """With its history; a run that it has begun goes on. Raises NotFound."""
        self._must_exist(name)
        (self.folder / name / "schedule.json").unlink()
        shutil.rmtree(self.folder / name)

    def ask(self, name: str) -> None:
        """Have it carried out now. Raises NotFound."""
        self._must_exist(name)
        write_whole(self.folder / name / "now", b"")

    def is_asked(self, name: str) -> bool:
        return (self.folder / name / "now").exists()

    def firings(self, name: str) -> Sequence[Firing]:
        """Oldest first."""
        return [_firing(name, json.loads(path.read_bytes())) for path in sorted(self.folder.glob(f"{name}/at-*.json"))]

    def put(self, firing: Firing) -> None:
        """One that was asked for is answered by its first line."""
        plain = {
            "slot": rfc3339(firing.slot),
            "sessions": firing.sessions,
            "run": firing.run,
            "outcome": firing.outcome,
        }
        folder = self.folder / firing.schedule
        if (folder / "schedule.json").exists():  # it may have been removed meanwhile
            write_whole(folder / f"at-{firing.slot:%Y%m%d-%H%M%S}.json", json.dumps(plain).encode())
            (folder / "now").unlink(missing_ok=True)

    def _must_exist(self, name: str) -> None:
        if not (self.folder / name / "schedule.json").exists():
            raise NotFound(f"there is no schedule {name!r}", fix="elias schedule list")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hands:
    """What a scheduler works with. Everything but `judge` returns at once; all of it is safe to repeat."""

    sessions: Callable[[Schedule], Sequence[str]]
    """Whose sessions it would train on now, by id."""
    begin: Callable[[Schedule, Firing], Run]
    """Builds the corpus of exactly these sessions and begins the run `Firing.run_id`."""
    run: Callable[[str], Run]
    judge: Callable[[Run], str | None]
    """None where the gate accepts its model, else why not."""
    deploy: Callable[[Run], str]
    """Puts its model into service, by the gate; one line about it. Raises a Refused or an EngineError."""


class Scheduler:
    """One thread carries all schedules, in order of name."""

    def __init__(self, book: ScheduleBook, hands: Hands, clock: Clock) -> None:
        self.book = book
        self._hands, self._clock = hands, clock

    def tick(self) -> None:
        """Once: whatever is due is begun, whatever is under way goes as far as it can now."""
        for schedule in self.book.list():
            try:
                firing = self._current(schedule)
                if firing is not None:
                    self._advance(schedule, firing)
            except EliasError as error:
                log.warning("schedule.failed name=%s what=%s", schedule.name, error.what)

    def _current(self, schedule: Schedule) -> Firing | None:
        """The one under way, or a new one, written down before anything is begun."""
        done = self.book.firings(schedule.name)
        if done and done[-1].outcome is None:
            return done[-1]
        now, last = self._clock.now().replace(microsecond=0), done[-1].slot if done else None
        is_asked = self.book.is_asked(schedule.name)
        slot = due_slot(schedule, last, now)
        if slot is None and (last is None or now > last):
            is_evident = schedule.at is None and (last is None or now - last >= EVIDENCE_EVERY)
            slot = now if is_asked or is_evident else None
        if slot is None:
            return None
        found, trained = tuple(self._hands.sessions(schedule)), _trained(done)
        new, needed = len(set(found) - trained), 0 if is_asked else schedule.new_sessions
        firing = Firing(schedule=schedule.name, slot=slot, sessions=found)
        if new < needed:
            if schedule.at is not None:
                why = f"left out: {new} new sessions, {needed} needed"
                self.book.put(replace(firing, sessions=(), outcome=why))
            return None
        self.book.put(firing)
        log.info("schedule.due name=%s slot=%s sessions=%d new=%d", schedule.name, rfc3339(slot), len(found), new)
        return firing

    def _advance(self, schedule: Schedule, firing: Firing) -> None:
        try:
            for stage in self._stages(schedule, firing):
                self.book.put(stage)
        except EliasError as error:
            if error.is_worth_retry:
                raise
            self.book.put(replace(firing, outcome=f"ended: {error.what} (fix: {error.fix})"))

    def _stages(self, schedule: Schedule, firing: Firing) -> Iterator[Firing]:
        if firing.run is None:
            firing = replace(firing, run=self._hands.begin(schedule, firing).id)
            yield firing
        run = self._hands.run(firing.run or "")
        if run.state in (RunState.FAILED, RunState.CANCELLED):
            yield replace(firing, outcome=f"{run.id} {run.state}: {run.reason or 'no reason was given'}")
        if run.state is not RunState.DONE:
            return
        refusal = self._hands.judge(run)
        if refusal is not None:
            yield replace(firing, outcome=f"trained, and kept out by the gate: {refusal}")
        elif schedule.deploy:
            yield replace(firing, outcome=self._hands.deploy(run))
        else:
            yield replace(firing, outcome="trained and accepted; it is not put into service by itself")


def _trained(done: Sequence[Firing]) -> set[str]:
    """The sessions of the last one that came to a run."""
    return set(next((firing.sessions for firing in reversed(done) if firing.run), ()))


def _firing(name: str, raw: Mapping[str, Any]) -> Firing:
    return Firing(
        schedule=name,
        slot=instant(raw["slot"]),
        sessions=tuple(raw["sessions"]),
        run=raw["run"],
        outcome=raw["outcome"],
    )
