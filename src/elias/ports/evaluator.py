"""A way to measure a candidate beside its rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from elias_trainer.contract import BaseModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    name: str
    """`candidate`, `in_service` or `base`."""
    adapter: Path | None
    """A verified folder; None is the bare base."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What one contender scored on one example: `value` over `weight` units (nats over tokens, passed over tests)."""

    metric: str
    contender: str
    example: str
    value: float
    weight: float
    group: Mapping[str, str]
    """The example's `source` and, where there is one, `stage`."""


class Evaluator(Protocol):
    lower_is_better: bool

    def measure(self, base: BaseModel, contenders: Sequence[Contender], heldout: Path) -> Sequence[Measurement]:
        """Each contender on each example that this evaluator understands; none is an answer too. Raises EngineError."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    def notes(self) -> Mapping[str, str]:
        """What the last `measure` bounded or left out, and why: a short key and a line for people."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorBounds:
    """How much is measured at most: a small model on two CPU cores takes some minutes for these."""

    examples: int = 200
    """Whose held-out loss is taken: the first in order of id."""
    functions: int = 12
    """That each contender writes anew, for their doctests."""
    answer_tokens: int = 256
    """Of a function that is written anew."""


def _nobody_listens(line: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatorContext:
    home: Path
    """The node's home; what an evaluator keeps for next time lies under `cache/`."""
    threads: int
    sequence_length: int
    engines: Mapping[str, Callable[[], object]]
    """Inference engines by name, made on demand, for evaluators that generate."""
    tell: Callable[[str], None] = field(default=_nobody_listens)
    """Progress, a line now and then."""
    bounds: EvaluatorBounds = field(default_factory=EvaluatorBounds)


EvaluatorFactory = Callable[[EvaluatorContext], Evaluator]
"""What an `elias.evaluators` entry point names."""
