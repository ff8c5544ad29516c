"""Room 3. What a run needs, and what a place offers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.habit import Habit
from elias.domain.hours import DailyHours
from elias.domain.label import Label
from elias.units import FREE, Money
from elias_trainer.contract import BaseModel, Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What a backend has to know about a run to say whether, how fast and for how much."""

    base: BaseModel
    recipe: Recipe
    label: Label
    corpus_bytes: int
    corpus_tokens: int | None = None
    """None while nobody has tokenized it."""
    instance: str | None = None
    """The only kind of machine that is wanted, where the place has several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    backend: str
    """The entry point's name."""
    variant: str = ""
    """Tells offers of one backend apart, such as `ml.g5.xlarge spot`; a segment keeps the one it was planned on."""
    accelerator: str
    """Such as `cpu`, `NVIDIA GeForce RTX 4060 Ti`, `NvidiaTeslaT4`, `ml.g5.2xlarge`."""
    accelerator_count: int
    memory_bytes: int
    """Of one accelerator; of the machine for a CPU."""
    tflops: float | None
    """Dense, of one accelerator, at the precision it would train in; None where unknown."""
    hourly: Money
    """What an hour is reserved at; zero where nobody pays."""
    once: Money = FREE
    """Reserved on top of the hours of each segment: storage, transfer, seconds of grace after its limit."""
    likely_hourly: Money | None = None
    """What an hour is expected to cost where that is less, as on spot; None is `hourly`."""
    interruptions_per_hour: float = 0.0
    """How often the place is expected to take the accelerator away; only published or seen figures."""
    fits: bool | None = None
    """Whether its memory holds the work, by the memory model; None where nobody can say."""
    likely_span: timedelta | None = None
    """How long the whole run would probably take there, its interruptions counted in; None where nobody can say."""
    likely_cost: Money | None = None
    """What that would probably cost, at `likely_hourly`, `once` included."""
    shortest: timedelta = timedelta(0)
    """A segment is reserved no shorter, even the last one of a run whose time is over: its start takes as long."""
    longest: timedelta | None
    """The longest segment it takes at a stretch; None has no limit."""
    left: timedelta | None
    """Of a quota, until `refreshes_at`; None has none."""
    refreshes_at: datetime | None = None
    kept: timedelta = timedelta(0)
    """Of the quota, on top of `left`: what runs without a budget will probably want of it."""
    concurrency: int = 1
    start_delay: timedelta = timedelta(0)
    needs_encryption: bool = False
    """Whether `private` data must be encrypted to go there; false only for this machine."""
    seals_private: bool = False
    """Whether its backend encrypts `private` data before it leaves."""
    hours: DailyHours | None = None
    """In which alone it can be had; None is at any time."""
    habit: Habit | None = None
    """When it is usually wanted for something else; None where nobody has looked."""
    refused: str | None = None
    """Why it cannot take this need, and what would change that; None takes it."""
    refused_until: datetime | None = None
    """When it is worth asking again, where the refusal passes by itself."""
    is_down: bool = False
    """Nobody answers there, and this is what it offered before that."""

    @property
    def is_paid(self) -> bool:
        """Whether anything is asked for it."""
        return self.hourly > FREE or self.once > FREE

    @property
    def passes_at(self) -> datetime | None:
        """When what refuses now opens again, surely enough to plan with it: never of a place that is down."""
        return self.refused_until if self.refused and self.memory_bytes and not self.is_down else None

    def open_for(self, now: datetime) -> timedelta | None:
        """Until its hours are over, where they have begun; None where it has none, or not now."""
        spans = self.hours.spans(now, now + timedelta.resolution) if self.hours else ()
        return next((closes - now for _, closes in spans), None)


def refused_place(backend: str, accelerator: str, why: str, until: datetime | None) -> Offer:
    """Of a place that could not be asked, so that nothing is known of it but its name."""
    return Offer(
        backend=backend,
        accelerator=accelerator,
        accelerator_count=1,
        memory_bytes=0,
        tflops=None,
        hourly=FREE,
        longest=None,
        left=None,
        refused=why,
        refused_until=until,
    )
