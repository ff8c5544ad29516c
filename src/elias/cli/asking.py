"""What the options of `elias train` and `elias plan` ask for, as a run to be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from elias.cli.output import say
from elias.config.schema import Config
from elias.domain.run import LEAST_CHANCE, MOST_STEPS, Bounds
from elias.errors import InputError, NotFound
from elias.services.runs import Wanted
from elias.units import Money, span_of
from elias_trainer.contract import BaseModel, Method, Objective, Precision, Recipe

MOST_AT_ONCE, LONGEST_SEQUENCE = 1_000_000, 10_000_000
Strategy = Annotated[str | None, typer.Option(help="local, hybrid, or the name of a backend.  [default: local]")]
Base = Annotated[str | None, typer.Option(help="A Hugging Face id, a folder, a GGUF file, `starter` or `tiny`.")]
Corpus = Annotated[str, typer.Option(help="A corpus, by the beginning of its digest.")]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="Training time, all segments together.")]
Epochs = Annotated[float | None, typer.Option(min=0.01, max=MOST_STEPS, help="Passes over the corpus.  [default: 1]")]
BatchSize = Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Sequences at a time.")]
Length = Annotated[int, typer.Option(min=16, max=LONGEST_SEQUENCE, help="Tokens; longer examples are cut.")]
Accumulation = Annotated[int, typer.Option(min=1, max=MOST_AT_ONCE, help="Batches to an optimizer step.")]
Recompute = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time: activations are made again.")
]
Budget = Annotated[str | None, typer.Option(help="The most that the run may spend, such as 20usd.")]
By = Annotated[str | None, typer.Option(help="When it must be done: friday, 3d, 36h, 2026-12-01, 2026-12-01T18:00.")]
Chance = Annotated[str | None, typer.Option(help="With which --by and --budget are to be kept.  [default: 90%]")]
Instance = Annotated[str | None, typer.Option(help="The only kind of machine to rent, such as ml.g5.xlarge.")]
Steps = Annotated[int | None, typer.Option(min=1, max=MOST_STEPS, help="Optimizer steps, in place of --epochs.")]
SegmentSteps = Annotated[int | None, typer.Option(min=1, max=MOST_STEPS, help="Steps in a segment at most.")]
MOST_CHANCE = 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    strategy: str | None = None
    base: str | None = None
    max_minutes: float | None = None
    epochs: float | None = None
    steps: int | None = None
    method: Method = Method.LORA
    objective: Objective = Objective.SFT
    rank: int = 16
    batch_size: int = 4
    accumulation: int = 1
    sequence_length: int = 1024
    learning_rate: float = 2e-4
    packing: bool = False
    precision: Precision = Precision.AUTO
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint_every: timedelta | None = None
    segment_steps: int | None = None
    budget: str | None = None
    by: str | None = None
    chance: str | None = None
    instance: str | None = None


def wanted_run(config: Config, asked: Asked) -> Wanted:
    """Raises InputError for what contradicts itself, NotFound for a base that is not there."""
    from elias.adapters.clock import SystemClock
    from elias.cli.deadline import deadline
    from elias.wiring.train import default_base

    if asked.epochs is not None and asked.steps is not None:
        raise InputError("--epochs and --steps both say how far to train", fix="give one of them")
    reference, note = (asked.base, None) if asked.base else default_base(config)
    if note:
        say(note)
    recipe = Recipe(
        method=asked.method,
        objective=asked.objective,
        rank=asked.rank,
        alpha=2 * asked.rank,
        batch_size=asked.batch_size,
        accumulation=asked.accumulation,
        sequence_length=asked.sequence_length,
        learning_rate=asked.learning_rate,
        packing=asked.packing,
        precision=asked.precision,
        gradient_checkpointing=asked.gradient_checkpointing,
        epochs=asked.epochs or 1.0,
        max_steps=asked.steps,
        seed=asked.seed,
    )
    bounds = Bounds(
        train_for=span_of(asked.max_minutes, "m") if asked.max_minutes else None,
        segment_steps=asked.segment_steps,
        budget=Money.parse(asked.budget) if asked.budget else None,
        by=deadline(asked.by, SystemClock().now()) if asked.by else None,
        chance=_share(asked.chance) if asked.chance is not None else None,
    )
    return Wanted(
        strategy=asked.strategy or config.training.strategy,
        base=BaseModel(reference=existing(reference or ""), allow_code=config.training.allow_code),
        recipe=recipe,
        bounds=bounds,
        checkpoint_every=asked.checkpoint_every,
        instance=asked.instance,
    )


def _share(text: str) -> float:
    """`95%` or `0.95`. Raises InputError for what no plan could keep, or is no better than tossing a coin."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        found = round(float(number) / (100 if percent else 1), 6)
    except ValueError:
        found = 0.0
    if not LEAST_CHANCE <= found <= MOST_CHANCE:
        raise InputError(f"--chance {text!r} is no chance to plan with", fix="give one from 50% to 99%, such as 95%")
    return found


def existing(reference: str) -> str:
    """A path becomes absolute, for the trainer works in a folder of its own; it must be there."""
    looks_like_path = reference.startswith(("/", "./", "../", "~")) or reference.endswith(".gguf")
    path = Path(reference).expanduser()
    if path.exists() and (looks_like_path or path.is_dir()):
        return str(path.absolute())
    if looks_like_path:
        raise NotFound(
            f"there is no base model at {reference}",
            fix="give a folder with config.json and *.safetensors, a .gguf file, a Hugging Face id, or `starter`",
        )
    return reference
