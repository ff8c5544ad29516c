"""How much work a recipe makes of a corpus: optimizer steps, and what a micro-batch computes. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elias.domain.run import MOST_STEPS
from elias.domain.speed import Sequences
from elias.errors import InputError
from elias_trainer.contract import TINY, Objective, Recipe

CHARACTERS_A_TOKEN = 3.2
"""Assumed for code and chat under today's vocabularies; `tiny` has a token for each byte."""
TEMPLATE_TOKENS = 8
"""Assumed, of a chat template around each message."""
_READ_LINES = 4000
_COUNTED_FACTOR, _ASSUMED_FACTOR = 1.05, 1.4
_FULL_FACTOR = 2.0
_PACKED_LOSS = 1.03
"""Assumed: packed sequences are not filled to the last token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    step_total: int | None
    """Optimizer steps of the whole run; None where nobody knows the corpus."""
    sequences: Sequences
    """In a micro-batch, padding included."""
    factor: float
    """How far the time of a step may be off because of it."""


def work_unknown(recipe: Recipe) -> Work:
    """Without a corpus: every sequence taken as full."""
    full = Sequences(count=recipe.batch_size, width=recipe.sequence_length)
    return Work(step_total=recipe.max_steps, sequences=full, factor=1.0 if recipe.packing else _FULL_FACTOR)


def work_of_corpus(lines: Iterable[bytes], recipe: Recipe, reference: str) -> Work:
    """From a corpus file's lines, of which the first few thousand are read and the rest counted."""
    lengths, unread = [], 0
    for number, line in enumerate(lines):
        if number >= _READ_LINES:
            unread += 1
        elif (length := _tokens(line, recipe.objective, reference)) is not None:
            lengths.append(length)
    if not lengths:
        return work_unknown(recipe)
    scale = 1 + unread / min(_READ_LINES, number + 1)
    cut = [min(length, recipe.sequence_length) for length in lengths]
    rows, width = math.ceil(len(cut) * scale), _padded_width(cut, recipe)
    if recipe.packing:
        width = float(recipe.sequence_length)
        rows = math.ceil(sum(cut) * scale / width * _PACKED_LOSS)
    batch = Sequences(count=min(recipe.batch_size, rows), width=width)
    return Work(step_total=steps(rows, recipe), sequences=batch, factor=_ASSUMED_FACTOR)


def work_of_events(events: Iterable[Mapping[str, Any]], recipe: Recipe) -> Work | None:
    """What the trainer itself counted; None before it has read the corpus."""
    loaded = next((event for event in events if event["kind"] == "loaded" and event.get("phase") == "corpus"), None)
    if loaded is None or not loaded.get("examples"):
        return None
    mean = loaded["tokens"] / loaded["examples"]
    if recipe.objective is Objective.DPO:
        mean /= 2
    width = mean if recipe.packing else min(mean * _padding(recipe.batch_size), recipe.sequence_length)
    batch = Sequences(count=min(recipe.batch_size, loaded["examples"]), width=max(width, 1.0))
    return Work(step_total=int(loaded["step_total"]), sequences=batch, factor=_COUNTED_FACTOR)


def steps(rows: int, recipe: Recipe) -> int:
    """As the trainer counts them: an epoch's last step may be short. Raises InputError for more than MOST_STEPS."""
    an_epoch = math.ceil(math.ceil(rows / recipe.batch_size) / recipe.accumulation)
    wanted = recipe.epochs * an_epoch if recipe.max_steps is None else recipe.max_steps
    if not wanted <= MOST_STEPS:
        raise InputError(f"this run would take more than {MOST_STEPS:,} steps", fix="give fewer --epochs or --steps")
    return wanted if isinstance(wanted, int) else max(1, math.ceil(round(wanted, 6)))


def _tokens(line: bytes, objective: Objective, reference: str) -> float | None:
    """About how many an example has; None for a line of the other objective or one that is no example."""
    try:
        raw = json.loads(line)
        answers = [raw["chosen"], raw["rejected"]] if raw.get("chosen") else []
        if bool(answers) is not (objective is Objective.DPO):
            return None
        characters: float = sum(len(message["content"]) for message in raw["messages"])
        characters += sum(map(len, answers)) / 2
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    each = 1.0 if reference == TINY else CHARACTERS_A_TOKEN
    return characters / each + TEMPLATE_TOKENS * (len(raw["messages"]) + bool(answers))


def _padded_width(lengths: Sequence[float], recipe: Recipe) -> float:
    """The mean width of micro-batches drawn at random: the expected longest of so many."""
    ordered, drawn = sorted(lengths), recipe.batch_size
    count = len(ordered)
    return sum(
        length * (((rank + 1) / count) ** drawn - (rank / count) ** drawn) for rank, length in enumerate(ordered)
    )


def _padding(batch_size: int) -> float:
    """Assumed: the longest of a batch beside the mean, of lengths spread like a corpus of functions and chats."""
    return 1.0 if batch_size == 1 else 1.0 + 0.35 * math.log2(batch_size)
