"""From Config to the schedules and to what carries them out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from elias.config.schema import Config
from elias.domain.offer import Need
from elias.domain.run import HYBRID, Bounds, Run, RunState
from elias.domain.schedule import Firing, Schedule, schedule_from
from elias.domain.spend import Cap, dollars, typed
from elias.errors import EliasError, NotFound, UserError, WorldError
from elias.services.base_check import check_base
from elias.services.corpus import Choice
from elias.services.deploy import DeployRequest, DeployService
from elias.services.runs import Wanted, new_run
from elias.services.schedule import Hands, ScheduleBook, Scheduler
from elias.wiring.backends import Backends, left_out
from elias.wiring.capture import check_stage
from elias.wiring.doctor import examine_place
from elias.wiring.plugins import find_plugin
from elias.wiring.spend import caps_of
from elias.wiring.train import Training, default_base
from elias_trainer.contract import BaseModel, Recipe

SCHEDULES_FOLDER = "schedules"


def schedule_book(config: Config) -> ScheduleBook:
    return ScheduleBook(config.home / SCHEDULES_FOLDER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """Why schedules would come to nothing as things are now; it passes once somebody does `fix`."""

    what: str
    fix: str


def add_schedules(
    config: Config, tables: Mapping[str, Mapping[str, Any]], now: datetime
) -> tuple[Sequence[Schedule], Sequence[Doubt]]:
    """All of them, or none where one asks for what there is not. Raises a UserError, NotFound or Refused."""
    book, backends, wanted = schedule_book(config), Backends(config), dict[str, Wanted]()
    found = [schedule_from(name, table, now) for name, table in tables.items()]
    for schedule in found:
        try:
            wanted[schedule.name] = _possible(config, backends, schedule)
        except EliasError as error:
            what = f"schedule {schedule.name}: {error.what}"
            raise type(error)(what, fix=error.fix, kept="no schedule was added") from error
    made = [book.add(name, table, now) for name, table in tables.items()]
    doubts = [*_doubts_of_places(config, backends, wanted), *_doubts_of_money(config, made)]
    return made, doubts


def _possible(config: Config, backends: Backends, schedule: Schedule) -> Wanted:
    """What it would ask for. Raises NotFound or InputError where that cannot be, ready or not."""
    for source in schedule.sources:
        find_plugin("elias.sources", source)
    for stage in schedule.stages:
        check_stage(stage)
    wanted = wanted_of(config, schedule)
    if wanted.strategy == HYBRID:
        left_out(config)
        return wanted
    with suppress(UserError, WorldError):  # it is there, and not ready yet
        backends.make(wanted.strategy)
    return wanted


def _doubts_of_places(config: Config, backends: Backends, wanted: Mapping[str, Wanted]) -> Iterator[Doubt]:
    """Each place is asked once for each base and recipe."""
    asked = dict[tuple[str, BaseModel, Recipe], list[str]]()
    for name, want in wanted.items():
        asked.setdefault((want.strategy, want.base, want.recipe), []).append(name)
    for (strategy, base, recipe), names in asked.items():
        if strategy == HYBRID:  # takes whatever is ready
            continue
        need = Need(base=base, recipe=recipe, label=config.capture.label, corpus_bytes=0)
        place = examine_place(backends, strategy, need)
        if place.needs and not any(offer.refused_until for offer in place.offers):
            what = f"{strategy} is not ready for {', '.join(names)}: {place.needs}"
            yield Doubt(what=what, fix=place.fix or "elias offers shows each place, and why not")


def _doubts_of_money(config: Config, schedules: Sequence[Schedule]) -> Iterator[Doubt]:
    caps = caps_of(config)
    for cap in Cap:
        limit = caps.of(cap)
        wishes = {s.name: s.budget for s in schedules if s.budget and limit is not None and s.budget > limit}
        if limit is not None and wishes:
            name = max(wishes, key=lambda name: wishes[name])
            what = f"{name} may spend {dollars(wishes[name])} each time, and budget.{cap} allows {dollars(limit)}"
            yield Doubt(what=what, fix=f"elias budget set {cap} {typed(wishes[name])}")


def scheduler(config: Config, training: Training, service: DeployService) -> Scheduler:
    from elias.wiring.corpus import make_corpora

    stores, means = training.stores, training.coordinator.means

    def sessions(schedule: Schedule) -> Sequence[str]:
        return [
            session.id
            for session in stores.sessions.select()
            if (not schedule.sources or session.source in schedule.sources)
            and (not schedule.stages or session.stage in schedule.stages)
        ]

    def begin(schedule: Schedule, firing: Firing) -> Run:
        try:
            run = stores.runs.get(firing.run_id)
        except NotFound:
            choice = Choice(heldout_share=config.training.heldout_share, sessions=frozenset(firing.sessions))
            corpus = make_corpora(config, stores).build(choice)
            run = replace(new_run(wanted_of(config, schedule), corpus, means.clock), id=firing.run_id)
        if run.state is RunState.QUEUED:  # also one that was killed before it was put in the queue
            training.runs.begin(run)
        return run

    def judge(run: Run) -> str | None:
        from elias.wiring.judge import make_judge

        known = next(iter(stores.models.verdicts(run.artifact)), None) if run.artifact else None
        verdict = known or make_judge(config, stores).judge(run.artifact or "", run.corpus)
        return None if verdict.accepted else "; ".join(verdict.reasons)

    def deploy(run: Run) -> str:
        newest = next(iter(service.history()), None)
        if newest is None or newest.artifact != run.artifact:
            newest = service.deploy(DeployRequest(artifact=run.artifact))
        return f"in service since deployment {newest.id}"

    hands = Hands(sessions=sessions, begin=begin, run=stores.runs.get, judge=judge, deploy=deploy)
    return Scheduler(schedule_book(config), hands, means.clock)


def wanted_of(config: Config, schedule: Schedule) -> Wanted:
    """Raises InputError or NotFound where the base is not to be had."""
    base = BaseModel(reference=schedule.base or default_base(config)[0], allow_code=config.training.allow_code)
    check_base(base, os.environ)
    recipe = Recipe(method=schedule.method, max_steps=schedule.steps)
    return Wanted(
        strategy=schedule.strategy or config.training.strategy,
        base=base,
        recipe=recipe if schedule.epochs is None else replace(recipe, epochs=schedule.epochs),
        bounds=Bounds(train_for=schedule.hours, budget=schedule.budget),
    )
