"""`elias train`: a run from a corpus, to its end."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.asking import (
    MOST_AT_ONCE,
    Accumulation,
    Base,
    BatchSize,
    Budget,
    By,
    Chance,
    Corpus,
    Epochs,
    Instance,
    Length,
    Minutes,
    Recompute,
    SegmentSteps,
    Steps,
    Strategy,
)
from elias.cli.output import Json, Yes, ask, say
from elias_trainer.contract import Method, Objective, Precision

if TYPE_CHECKING:
    from elias.domain.corpus import Corpus as Examples
    from elias.domain.plan import Plan
    from elias.domain.run import Run
    from elias.services.runs import Wanted
    from elias.wiring.train import Training

app = typer.Typer(add_completion=False)
MOST_OTHERS = 3
"""Rented machines that were not taken, shown before the question; `elias plan` shows all."""


@app.command()
def train(
    strategy: Strategy = None,
    base: Base = None,
    corpus: Corpus = "latest",
    data: Annotated[
        Path | None, typer.Option(help="Capture this first: a source tree, a repository, a .jsonl.")
    ] = None,
    budget: Budget = None,
    by: By = None,
    chance: Chance = None,
    instance: Instance = None,
    max_minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    method: Annotated[Method, typer.Option(help="What is trained.")] = Method.LORA,
    objective: Annotated[Objective, typer.Option(help="What it learns from.")] = Objective.SFT,
    rank: Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Of LoRA's matrices.")] = 16,
    batch_size: BatchSize = 4,
    accumulation: Accumulation = 1,
    sequence_length: Length = 1024,
    learning_rate: Annotated[float, typer.Option(min=0, max=100, help="At its highest.")] = 2e-4,
    packing: Annotated[bool, typer.Option(help="Several examples in one sequence.")] = False,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic; the CPU has fp32 alone.")] = Precision.AUTO,
    gradient_checkpointing: Recompute = False,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of data order and dropout.")] = 0,
    checkpoint_minutes: Annotated[float | None, typer.Option(min=0, help="Between two checkpoints.")] = None,
    segment_steps: SegmentSteps = None,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Train a model on a corpus: until it is done, or as long as you say."""
    from elias.cli import carry
    from elias.cli.asking import Asked, wanted_run
    from elias.config import load
    from elias.services.base_check import check_base
    from elias.units import span_of
    from elias.wiring.attest import check_node
    from elias.wiring.corpus import corpus_from_data
    from elias.wiring.train import open_training

    config = load()
    asked = Asked(
        strategy=strategy, base=base, max_minutes=max_minutes, epochs=epochs, steps=steps, method=method,
        objective=objective, rank=rank, batch_size=batch_size, accumulation=accumulation,
        sequence_length=sequence_length, learning_rate=learning_rate, packing=packing,
        precision=precision, gradient_checkpointing=gradient_checkpointing, seed=seed,
        checkpoint_every=span_of(checkpoint_minutes, "m") if checkpoint_minutes is not None else None,
        segment_steps=segment_steps, budget=budget, by=by, chance=chance, instance=instance,
    )  # fmt: skip
    wanted = wanted_run(config, asked)
    check_base(wanted.base, os.environ)
    with open_training(config) as training:
        found = corpus_from_data(config, training.stores, data) if data else training.stores.corpora.get(corpus)
        plan = training.plan(wanted, found)
        check_node(config)
        _agree(training, wanted, found, plan, yes=yes)
        run = _begun(training, wanted, found)
        if detach:
            carry.detach(training, run, json=json)
        else:
            carry.carry_and_answer(training, run, json=json)


def _agree(training: Training, wanted: Wanted, corpus: Examples, plan: Plan, *, yes: bool) -> None:
    """Nothing is spent before the whole plan was seen and agreed to; nothing is begun that no place will ever take."""
    from elias.cli.plan_print import print_plan
    from elias.cli.plan_table import print_unmade
    from elias.errors import Refused

    budget = wanted.bounds.budget
    is_hopeless = not plan.segments and plan.wait_until is None
    if not plan.costs_money and budget is None and not is_hopeless:
        return
    plan = training.plan_ahead(wanted, corpus)
    with redirect_stdout(sys.stderr):  # what `train` answers on stdout is the run
        print_plan(plan, most_others=MOST_OTHERS)
        print_unmade(training.unmade())
    if is_hopeless:
        again = "elias plan with the same words shows each place, and why not; then elias train again"
        raise Refused("nothing takes this run, and waiting would not help", fix=again, kept="no run was begun")
    if plan.costs_money:
        ask("This costs money. Begin?", yes=yes)
    elif budget is not None and plan.segments:
        say(f"free as planned; should that change on the way, it spends {budget} at most, which is its budget")


def _begun(training: Training, wanted: Wanted, corpus: Examples) -> Run:
    from elias.services.runs import new_run

    run = new_run(wanted, corpus, training.coordinator.means.clock)
    training.runs.begin(run)
    say(f"{run.id}: {run.base.reference} on corpus {run.corpus.short} ({corpus.train_examples} examples)")
    return run
