"""Room 6. A verdict: whether a candidate may replace the model in service, and the numbers it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from elias_trainer.contract import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    low: float
    high: float
    level: float
    """Confidence, such as 0.95."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A candidate beside a rival, on the same examples. Lower is better where `lower_is_better`."""

    metric: str
    """Such as `heldout_loss` (nats a token) or `doctests_passed` (share)."""
    group: str
    """`all`, `source:code`, `stage:2`, …"""
    rival: str
    """`base` or `in_service`."""
    candidate_value: float
    rival_value: float
    difference: Interval | None
    """Of candidate minus rival; from a paired bootstrap over examples. None where they are too few for one."""
    examples: int
    lower_is_better: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRule:
    """What a candidate must show to go into service."""

    metric: str = "heldout_loss"
    rival: str = "in_service"
    """The base, while nothing is in service."""
    level: float = 0.95
    no_worse_in_any_stage: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    id: str
    candidate: Digest
    rival: Digest | None
    """The artifact that was in service; None where it was the bare base."""
    corpus: Digest
    accepted: bool
    reasons: tuple[str, ...]
    """One line a rule: what it wanted and what it found."""
    comparisons: tuple[Comparison, ...]
    rule: GateRule = field(default_factory=GateRule)
    judged_at: datetime
    details: Mapping[str, str] = field(default_factory=dict)
