"""`elias plan`: the whole of a run before anything is spent: where, when, for how much, how likely, and what else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.asking import (
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
from elias.cli.output import Json, emit_json
from elias.cli.plan_drawing import Drawing
from elias.cli.plan_print import print_plan, print_points, print_queue
from elias.cli.plan_table import print_unmade
from elias_trainer.contract import Method

if TYPE_CHECKING:
    from elias.services.runs import Wanted
    from elias.wiring.train import Training

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    strategy: Strategy = None,
    base: Base = None,
    corpus: Corpus = "latest",
    budget: Budget = None,
    by: By = None,
    chance: Chance = None,
    instance: Instance = None,
    max_minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    method: Annotated[Method, typer.Option(help="What is trained.")] = Method.LORA,
    batch_size: BatchSize = 4,
    sequence_length: Length = 1024,
    gradient_checkpointing: Recompute = False,
    segment_steps: SegmentSteps = None,
    picture: Annotated[
        str | None, typer.Option(help="Draw it: FILE.svg, FILE.png, or - for characters.  [default: - on a terminal]")
    ] = None,
    what_if: Annotated[bool, typer.Option("--what-if", help="Cost against deadline, as rows and a curve.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="All runs that wait or train, planned together.")] = False,
    json: Json = False,
) -> None:
    """Where a run would go from segment to segment, when, for how much, how likely in time, and why not elsewhere.

    Starts nothing, and exits 4 when nothing takes it.
    """
    from elias.cli.asking import Asked, wanted_run
    from elias.config import load
    from elias.errors import InputError
    from elias.wiring.train import open_training

    config = load()
    asked = Asked(
        strategy=strategy, base=base, max_minutes=max_minutes, epochs=epochs, steps=steps, method=method,
        batch_size=batch_size, sequence_length=sequence_length, gradient_checkpointing=gradient_checkpointing,
        segment_steps=segment_steps, budget=budget, by=by, chance=chance, instance=instance,
    )  # fmt: skip
    if what_if and by:
        raise InputError("--what-if looks at all deadlines, and --by names one", fix="leave out one of the two")
    drawing = Drawing.of(picture, is_json=json)
    with open_training(config) as training:
        if queue:
            _queue(training, drawing, json=json)
        elif what_if:
            _curve(training, (wanted_run(config, asked), corpus), drawing, json=json)
        else:
            _plan(training, (wanted_run(config, asked), corpus), drawing, json=json)


def _plan(training: Training, asked: tuple[Wanted, str], drawing: Drawing, *, json: bool) -> None:
    wanted, corpus = asked
    found = training.plan_ahead(wanted, training.stores.corpora.get(corpus))
    now = training.coordinator.means.clock.now()
    if json:
        emit_json(found)
        drawing.plans([found], now)
    else:
        print_plan(found, draw=lambda: drawing.plans([found], now))
        print_unmade(training.unmade())
    if not found.segments:
        raise typer.Exit(4)


def _curve(training: Training, asked: tuple[Wanted, str], drawing: Drawing, *, json: bool) -> None:
    from elias.wiring.plan import plan_what_if

    wanted, corpus = asked
    points = plan_what_if(training, wanted, training.stores.corpora.get(corpus))
    if json:
        emit_json(points)
    else:
        print_points(points)
    drawing.curve(points)


def _queue(training: Training, drawing: Drawing, *, json: bool) -> None:
    from elias.wiring.plan import plan_standing_runs

    found = plan_standing_runs(training)
    if json:
        emit_json(found)
    else:
        print_queue(found)
    drawing.plans(found.plans, training.coordinator.means.clock.now())
