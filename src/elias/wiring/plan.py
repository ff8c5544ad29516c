"""From a node's training to plans: the curve of cost against deadline, and the queue of its runs."""

from __future__ import annotations

from datetime import datetime

from elias.domain.corpus import Corpus
from elias.domain.plan import QueuePlan, WhatIf
from elias.domain.run import Run
from elias.domain.spend import Caps
from elias.errors import NotFound, UserError
from elias.services.planner.explain import curve, what_if
from elias.services.planner.outlook import Outlook, queue_problem
from elias.services.planner.problem import Problem
from elias.services.planner.queue import plan_queue
from elias.services.runs import Wanted, new_run
from elias.units import Money
from elias.wiring.train import Training


def plan_what_if(
    training: Training, wanted: Wanted, corpus: Corpus, deadlines: tuple[datetime, ...] = ()
) -> tuple[WhatIf, ...]:
    """At these deadlines, or from the soonest end to the cheapest. Raises UserError where nobody knows the work."""
    run = new_run(wanted, corpus, training.coordinator.means.clock)
    problem = _outlook(training, run).problem()
    if problem is None:
        raise UserError(
            "cost against deadline needs a run with a known number of steps",
            fix="leave out --max-minutes, or give --steps",
        )
    return what_if(problem, problem.runs[0], deadlines) if deadlines else curve(problem, problem.runs[0])


def plan_standing_runs(training: Training) -> QueuePlan:
    """Of all runs in the store that have not ended. Raises NotFound where there is none."""
    problem = standing_runs(training)
    return plan_queue(problem)


def standing_runs(training: Training) -> Problem:
    """As a problem, for whoever draws it. Raises NotFound where there is none whose work is known."""
    runs = [run for run in training.stores.runs.list() if not run.state.is_standing]
    outlooks = [_outlook(training, run) for run in reversed(runs)]
    known = [outlook for outlook in outlooks if outlook.problem() is not None]
    if not known:
        raise NotFound(
            "no run waits or trains that could be planned", fix="begin one: elias train --detach, or: elias run list"
        )
    return queue_problem(known, weekly_money(training.coordinator.means.purse.caps()))


def weekly_money(caps: Caps) -> Money | None:
    """What the caps of a day and of a month let all runs spend in a week."""
    limits = [Money(caps.day.micro_usd * 7)] if caps.day is not None else []
    limits += [caps.month] if caps.month is not None else []
    return min(limits, default=None)


def _outlook(training: Training, run: Run) -> Outlook:
    means = training.coordinator.means
    segments = means.runs.segments(run.id)
    return training.coordinator.planning.outlook(run, segments, means.corpora.get(run.corpus), means.purse.left(run))
