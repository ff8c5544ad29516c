"""The training coordinator's call under its name in the seed system."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elias.domain.artifact import Artifact
from elias.domain.run import Bounds, Run, RunState
from elias.errors import Refused
from elias.units import FREE, Money, span_of

if TYPE_CHECKING:
    from elias.config import Config
    from elias.domain.plan import Plan
    from elias.services.runs import Wanted
    from elias.wiring.train import Training

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Cycle:
    """How far to train, and on what; what is None is as configured."""

    base: str | None = None
    steps: int | None = None
    """Optimizer steps; None is one pass over the corpus."""
    max_minutes: float | None = None
    budget: Money = FREE
    """What it may cost: nothing, unless said."""


def run_training_cycle(data_path: str | Path, strategy: str = "local", cycle: Cycle | None = None) -> Artifact:
    """Capture what is at `data_path`, train on it where `strategy` allows, and return the signed model.

    `strategy` is `local`, `hybrid`, or the name of a backend. Returns when the model is there, which may take hours;
    a run that was cut off, by Ctrl-C or a crash, is not lost: `elias run resume latest` goes on.
    Raises an EliasError: InputError for data that nothing understands, NotFound, LabelForbids, BudgetExhausted,
    BackendError, Refused when somebody paused or cancelled the run.
    """
    from elias.config import load
    from elias.services.runs import error_of, new_run
    from elias.wiring.attest import check_node
    from elias.wiring.corpus import corpus_from_data
    from elias.wiring.train import open_training

    config, cycle = load(), cycle or Cycle()
    wanted = _wanted(config, str(strategy), cycle)
    with open_training(config) as training:
        corpus = corpus_from_data(config, training.stores, Path(data_path).expanduser())
        _check_price(training.plan(wanted, corpus), cycle.budget)
        check_node(config)
        run = new_run(wanted, corpus, training.coordinator.means.clock)
        training.runs.begin(run)
        run = _until_it_stands(training, run.id)
        if run.state is RunState.FAILED:
            raise error_of(run, training.stores.runs.segments(run.id))
        if run.state is not RunState.DONE or run.artifact is None:
            raise Refused(f"{run.id} is {run.state}: there is no model", fix=f"elias run resume {run.id}")
        return training.stores.models.artifact(run.artifact)


def _wanted(config: Config, strategy: str, cycle: Cycle) -> Wanted:
    from elias.services.base_check import check_base
    from elias.services.runs import Wanted
    from elias.wiring.train import default_base
    from elias_trainer.contract import BaseModel, Recipe

    base = BaseModel(reference=cycle.base or default_base(config)[0], allow_code=config.training.allow_code)
    check_base(base, os.environ)
    return Wanted(
        strategy=strategy,
        base=base,
        recipe=Recipe(max_steps=cycle.steps),
        bounds=Bounds(
            train_for=span_of(cycle.max_minutes, "m") if cycle.max_minutes else None,
            budget=cycle.budget if cycle.budget > FREE else None,
        ),
    )


def _check_price(plan: Plan, budget: Money) -> None:
    """A program cannot be asked whether it agrees, so that what costs money needs a budget beforehand."""
    if budget == FREE and any(segment.offer.hourly > FREE for segment in plan.segments):
        dearest = max(segment.offer.hourly for segment in plan.segments)
        raise Refused(
            f"this would cost up to {dearest} an hour, and no budget was given",
            fix="run_training_cycle(…, Cycle(budget=Money.usd(20))), or a strategy that costs nothing",
        )


def _until_it_stands(training: Training, run_id: str) -> Run:
    """Carries the run in this process unless another one of this node does; no deadline but the run's own."""
    while True:
        with suppress(Refused):  # another process is this node's engine, and carries the run
            training.launch()
        run = training.stores.runs.get(run_id)
        if run.state.is_standing:
            return run
        time.sleep(_LOOK_EVERY_S)
