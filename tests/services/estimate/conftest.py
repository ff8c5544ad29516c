"""Events as a trainer writes them, with the seconds that a test wants between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.run import Run, Segment
from elias.testing.nouns import NOON, a_run
from elias.units import FREE, rfc3339
from elias_trainer.contract import BaseModel, Recipe


@dataclass(frozen=True)
class Script:
    """A segment's events: a first step of its own length, then one step after the other."""

    spans: Sequence[float]
    first: float = 5.0
    step_total: int = 1000
    accelerator: str = "Tesla T4"
    count: int = 1
    precision: str = "fp16"
    examples: int = 4000
    tokens: int = 4000 * 300

    def events(self) -> list[dict[str, Any]]:
        at, found = NOON, []

        def say(kind: str, after: float, **fields: Any) -> None:
            nonlocal at
            at += timedelta(seconds=after)
            found.append({"seq": len(found), "at": rfc3339(at), "kind": kind, **fields})

        say("started", 0, accelerator=self.accelerator, accelerator_count=self.count, precision=self.precision)
        say("loaded", 2, phase="base", seconds=2.0)
        say("loaded", 1, phase="corpus", seconds=1.0, examples=self.examples, tokens=self.tokens,
            step_total=self.step_total)  # fmt: skip
        for step, span in enumerate([self.first, *self.spans], 1):
            say("step", span, step=step, step_total=self.step_total, tokens=1200)
        return found


BASE = "deepseek-ai/deepseek-coder-1.3b-instruct"


@pytest.fixture
def run() -> Run:
    return replace(a_run(), base=BaseModel(reference=BASE), recipe=Recipe())


@pytest.fixture
def t4() -> Offer:
    return an_offer()


def an_offer(accelerator: str = "NvidiaTeslaT4", **changes: Any) -> Offer:
    plain = Offer(
        backend="kaggle", accelerator=accelerator, accelerator_count=1, memory_bytes=15 * 2**30, tflops=None,
        hourly=FREE, longest=None, left=None, needs_encryption=True, seals_private=True,
    )  # fmt: skip
    return replace(plain, **changes)


def a_part(run: Run, number: int = 1, backend: str = "kaggle") -> Segment:
    return Segment(run=run.id, number=number, backend=backend)


@pytest.fixture
def a_need() -> Need:
    return Need(base=BaseModel(reference=BASE), recipe=Recipe(), label=Label.PRIVATE, corpus_bytes=1)
