"""From Config to the schedules and to what carries them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from elias.config.schema import Config
from elias.domain.run import Bounds, Run, RunState
from elias.domain.schedule import Firing, Schedule
from elias.errors import NotFound
from elias.services.base_check import check_base
from elias.services.corpus import Choice
from elias.services.deploy import DeployRequest, DeployService
from elias.services.runs import Wanted, new_run
from elias.services.schedule import Hands, ScheduleBook, Scheduler
from elias.wiring.train import Training, default_base
from elias_trainer.contract import BaseModel, Recipe

SCHEDULES_FOLDER = "schedules"


def schedule_book(config: Config) -> ScheduleBook:
    return ScheduleBook(config.home / SCHEDULES_FOLDER)


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
