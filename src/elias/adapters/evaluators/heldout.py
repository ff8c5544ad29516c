"""Reading a corpus' held-out file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from elias.domain.corpus import Example, example_from_line
from elias.errors import InputError


def read_examples(heldout: Path) -> Sequence[Example]:
    """In the order of the file. Raises InputError naming the line."""
    with heldout.open("rb") as lines:
        return [_example(line, heldout, number) for number, line in enumerate(lines, 1) if line.strip()]


def group_of(example: Example) -> dict[str, str]:
    """What a measurement on it is grouped by."""
    stage = {} if example.stage is None else {"stage": str(example.stage)}
    return {"source": example.source, **stage}


def _example(line: bytes, heldout: Path, number: int) -> Example:
    try:
        return example_from_line(line)
    except ValueError as error:
        raise InputError(
            f"{heldout}, line {number}: {error}", fix="build the corpus again: elias corpus build"
        ) from error
