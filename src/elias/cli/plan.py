"""`elias plan`: where a run would go now, and why not elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from elias.cli.asking import (
    Base,
    BatchSize,
    Budget,
    By,
    Corpus,
    Epochs,
    Instance,
    Length,
    Minutes,
    Recompute,
    Steps,
    Strategy,
)
from elias.cli.output import Json, emit_json, say
from elias.cli.plan_table import print_others
from elias.domain.plan import Plan
from elias_trainer.contract import Method

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    strategy: Strategy = None,
    base: Base = None,
    corpus: Corpus = "latest",
    budget: Budget = None,
    by: By = None,
    instance: Instance = None,
    max_minutes: Minutes = None,
    epochs: Epochs = None,
    steps: Steps = None,
    method: Annotated[Method, typer.Option(help="What is trained.")] = Method.LORA,
    batch_size: BatchSize = 4,
    sequence_length: Length = 1024,
    gradient_checkpointing: Recompute = False,
    json: Json = False,
) -> None:
    """Where a training run would go, and why not elsewhere. Starts nothing, and exits 4 when nothing takes it."""
    from elias.cli.asking import Asked, wanted_run
    from elias.config import load
    from elias.wiring.train import open_training

    config = load()
    asked = Asked(
        strategy=strategy, base=base, max_minutes=max_minutes, epochs=epochs, steps=steps, method=method,
        batch_size=batch_size, sequence_length=sequence_length, gradient_checkpointing=gradient_checkpointing,
        budget=budget, by=by, instance=instance,
    )  # fmt: skip
    wanted = wanted_run(config, asked)
    with open_training(config) as training:
        found = training.plan(wanted, training.stores.corpora.get(corpus))
    if json:
        emit_json(found)
    else:
        print_plan(found)
    if not found.segments:
        raise typer.Exit(4)


def print_plan(found: Plan) -> None:
    for segment in found.segments:
        offer = segment.offer
        span = f"for up to {segment.span}" if segment.span else "to the end of the run"
        cost = f"{offer.hourly} an hour, {segment.reserve} at most" if offer.hourly.micro_usd else "costs nothing"
        print(f"{offer.backend}: {offer.accelerator_count} x {offer.accelerator}, {span}, {cost}")
    if not found.segments:
        say(f"nothing takes this run now: {found.reason}")
        if found.wait_until:
            say(f"worth asking again at {found.wait_until:%Y-%m-%d %H:%M} UTC")
    print_others(found)
