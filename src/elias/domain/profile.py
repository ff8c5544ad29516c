"""Presets for three kinds of user: what a node's settings begin with, where nothing stronger says otherwise.

The amounts of money are where to begin, not what anything costs; `elias plan` says that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    summary: str
    settings: Mapping[str, object]
    """Dotted name -> value, as it would be written in the file."""


INDIVIDUAL = Profile(
    summary="one person: inference on this machine, training here and in Kaggle's free hours, no money",
    settings={
        "capture.label": "private",
        "training.strategy": "hybrid",
        "budget.account": "0usd",
        "gate.level": 0.9,
        "gate.no_worse_in_any_stage": False,
        "serving.queue_bound": 1,
    },
)
SMALL_BUSINESS = Profile(
    summary="a small business: inference on this machine, SageMaker now and then, within a month's budget",
    settings={
        "capture.label": "private",
        "training.strategy": "hybrid",
        "budget.run": "20usd",
        "budget.day": "20usd",
        "budget.month": "100usd",
        "gate.level": 0.95,
        "gate.no_worse_in_any_stage": True,
        "serving.queue_bound": 4,
        "serving.latency_bound": "5s",
    },
)
RESEARCH = Profile(
    summary="research: full training on this machine, and cloud that is rented for it",
    settings={
        "capture.label": "private",
        "training.strategy": "hybrid",
        "budget.run": "200usd",
        "budget.day": "200usd",
        "budget.month": "2000usd",
        "gate.level": 0.99,
        "gate.no_worse_in_any_stage": True,
        "judge.examples": 1000,
        "serving.queue_bound": 8,
    },
)
PROFILES: Mapping[str, Profile] = {
    "individual": INDIVIDUAL,
    "small-business": SMALL_BUSINESS,
    "research": RESEARCH,
}
