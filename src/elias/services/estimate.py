"""How long the rest of a run takes on an offer: the model's word, corrected by what was measured. Pure.

The logarithm of the true seconds of a step is the model's plus two unknown errors: one of the job (what its sequences
really hold, what its base really is), one of the place (what share of its peak this card reaches). A step measured in
this run on this card tells their sum; one of this run elsewhere tells the job's; one of another run here, the place's.
Both errors are normal with the widths that model and workload state, so that the answer is a weighted mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from elias.domain.offer import Need, Offer
from elias.domain.run import Run, Segment
from elias.domain.speed import QUANTILE, Estimate, Overheads, Place, overheads, step_time
from elias.services.base_shape import ShapeGuess, model_shape
from elias.services.next_move import newest_checkpoint
from elias.services.sightings import (
    Hardware,
    Seen,
    SegmentStory,
    Sighting,
    hardware_of,
    sighting_of,
    step_seconds,
)
from elias.services.workload import Work, work_of_events, work_unknown
from elias.units import LONGEST
from elias_trainer.contract import BaseModel, Recipe

DOWNLOAD_BYTES_PER_S = 50e6
"""Assumed, of a base that a place has to fetch first."""
DRIFT = 0.05
"""Of the logarithm: what comes may differ from what was measured, however much of it there is."""
MISFIT, MISFIT_ELSEWHERE = 0.15, 0.1
"""Of the logarithm: how well the model carries over from another base or recipe, from another card."""

Events = Mapping[str, Sequence[Mapping[str, Any]]]
"""By segment key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is to be trained, as far as it decides the time of a step."""

    base: BaseModel
    recipe: Recipe
    guess: ShapeGuess
    work: Work
    run: str = ""
    """Empty for one that has not begun."""

    @property
    def sigma(self) -> float:
        return math.hypot(math.log(self.guess.factor), math.log(self.work.factor)) / QUANTILE


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Of one run on one offer."""

    step: Estimate
    """Seconds of an optimizer step."""
    steps: int | None
    """Left to do; None where nobody knows the corpus."""
    overheads: Overheads
    basis: tuple[str, ...]
    """What it rests on, a line each."""

    @property
    def remaining(self) -> Estimate | None:
        """Seconds of training, start-up left out; at most LONGEST, which any instant can bear."""
        if self.steps is None:
            return None
        whole, most = self.step.times(self.steps), LONGEST.total_seconds()
        return Estimate(low=min(most, whole.low), likely=min(most, whole.likely), high=min(most, whole.high))


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What else there is to go by."""

    seen: Seen = field(default_factory=Seen)
    """Of all runs in this node's store."""
    work: Work | None = None
    """Of the corpus, for a run whose trainer has not counted it yet."""


def remaining(
    run: Run, segments: Sequence[Segment], events: Events, offer: Offer, known: Known | None = None
) -> Estimate | None:
    """Seconds of training that are left from the newest checkpoint on; None where nobody knows the corpus."""
    return forecast(run, segments, events, offer, known).remaining


def forecast(
    run: Run, segments: Sequence[Segment], events: Events, offer: Offer, known: Known | None = None
) -> Forecast:
    """Of the rest of a run on an offer. The run's own bounds on time and money are left out."""
    return forecasts(run, segments, events, [offer], known)[0]


def forecasts(
    run: Run, segments: Sequence[Segment], events: Events, offers: Iterable[Offer], known: Known | None = None
) -> Sequence[Forecast]:
    """As `forecast`, on each."""
    known = known or Known()
    job = job_of(run, [event for s in segments for event in events.get(s.key, ())], known.work)
    stories = [SegmentStory(run=run, segment=s, events=events.get(s.key, ())) for s in segments]
    own = [found for story in stories if (found := sighting_of(story)) is not None]
    others = [sighting for sighting in known.seen.sightings if sighting.run != run.id]
    start = newest_checkpoint(segments)
    done, sightings = start.step if start else 0, [*own, *others]
    return [_forecast(job, _Spot.of(offer, run.recipe), sightings, done) for offer in offers]


def forecast_new(need: Need, offer: Offer, known: Known | None = None) -> Forecast:
    """Of a run that has not begun."""
    known = known or Known()
    job = Job(
        base=need.base,
        recipe=need.recipe,
        guess=model_shape(need.base.reference),
        work=known.work or work_unknown(need.recipe),
    )
    return _forecast(job, _Spot.of(offer, need.recipe), known.seen.sightings, 0)


def forecast_found(run: Run, segment: Segment, events: Sequence[Mapping[str, Any]], done: int) -> Forecast | None:
    """Of a segment under way, on the hardware that its trainer found; None before it has said which."""
    hardware = hardware_of(segment, events)
    if hardware is None:
        return None
    own = sighting_of(SegmentStory(run=run, segment=segment, events=events))
    spot = _Spot(place=_place_found(hardware), hardware=hardware)
    return _forecast(job_of(run, events, None), spot, [own] if own else [], done)


def corrected(prior: Estimate, events: Sequence[Mapping[str, Any]]) -> Estimate:
    """A step's seconds, by what a segment's events on that very place say; narrower than `prior`, never wider."""
    measured = step_seconds(events)
    if measured is None or prior.sigma == 0:
        return prior
    residual = math.log(measured.seconds / prior.likely)
    return _posterior(prior, 0.0, [_Observation(residual, measured.noise, is_same_job=True, is_same_place=True)])


def job_of(run: Run, events: Iterable[Mapping[str, Any]], work: Work | None) -> Job:
    counted = work_of_events(events, run.recipe)
    return Job(
        run=run.id,
        base=run.base,
        recipe=run.recipe,
        guess=model_shape(run.base.reference),
        work=counted or work or work_unknown(run.recipe),
    )


def place_of(offer: Offer, recipe: Recipe) -> Place:
    """Whatever is not this machine fetches the base first, at an assumed rate."""
    download = DOWNLOAD_BYTES_PER_S if offer.needs_encryption else None
    return Place.of(offer, recipe, download=download)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Spot:
    """An offer, as the model and as the sightings know it."""

    place: Place
    hardware: Hardware

    @classmethod
    def of(cls, offer: Offer, recipe: Recipe) -> _Spot:
        place = place_of(offer, recipe)
        found = Hardware(
            backend=offer.backend, accelerator=offer.accelerator, count=place.count, precision=place.precision
        )
        return cls(place=place, hardware=found)


@dataclass(frozen=True, slots=True)
class _Observation:
    residual: float
    """Logarithm of measured over modelled."""
    noise: float
    is_same_job: bool
    is_same_place: bool


def _forecast(job: Job, spot: _Spot, sightings: Sequence[Sighting], done: int) -> Forecast:
    prior = step_time(job.guess.shape, job.recipe, spot.place, job.work.sequences)
    used = [s for s in sightings if s.run == job.run or s.hardware.key == spot.hardware.key]
    observations = [_observe(job, spot, sighting) for sighting in used]
    total = job.work.step_total
    return Forecast(
        step=_posterior(prior, job.sigma, observations),
        steps=None if total is None else max(0, total - done),
        overheads=overheads(job.guess.shape, job.recipe, spot.place),
        basis=_basis(job, spot, used),
    )


def _observe(job: Job, spot: _Spot, sighting: Sighting) -> _Observation:
    """The other job's own error, and the other place's, are noise here."""
    is_same_job = sighting.run == job.run
    is_same_place = sighting.hardware.key == spot.hardware.key
    there = spot.place if is_same_place else _place_found(sighting.hardware)
    work = work_of_events([sighting.corpus_event], sighting.recipe) or work_unknown(sighting.recipe)
    other = job if is_same_job else replace(job, guess=model_shape(sighting.base.reference), work=work)
    modelled = step_time(other.guess.shape, sighting.recipe, there, other.work.sequences)
    noise = [sighting.measured.noise]
    if not is_same_job:
        is_alike = (sighting.base.reference, sighting.recipe) == (job.base.reference, job.recipe)
        noise += [other.sigma, 0.0 if is_alike else MISFIT]
    if not is_same_place:
        noise += [modelled.sigma, MISFIT_ELSEWHERE]
    residual = math.log(sighting.measured.seconds / modelled.likely)
    return _Observation(residual, math.hypot(*noise), is_same_job, is_same_place)


def _posterior(prior: Estimate, job_sigma: float, observations: Sequence[_Observation]) -> Estimate:
    """Of the sum of both errors: the normal equations of two unknowns, solved."""
    place_sigma = max(prior.sigma, 1e-6)
    job, place, both = 1 / max(job_sigma, 1e-6) ** 2, 1 / place_sigma**2, 0.0
    job_sum = place_sum = 0.0
    for seen in observations:
        weight = 1 / max(seen.noise, 1e-6) ** 2
        job += weight * seen.is_same_job
        place += weight * seen.is_same_place
        both += weight * (seen.is_same_job and seen.is_same_place)
        job_sum += weight * seen.residual * seen.is_same_job
        place_sum += weight * seen.residual * seen.is_same_place
    determinant = job * place - both * both
    mean = ((place - both) * job_sum + (job - both) * place_sum) / determinant
    variance = (job + place - 2 * both) / determinant
    if observations:
        variance = min(variance + DRIFT**2, prior.sigma**2 + job_sigma**2)
    return Estimate.around(prior.likely * math.exp(mean), math.exp(QUANTILE * math.sqrt(variance)))


def _place_found(hardware: Hardware) -> Place:
    return Place(accelerator=hardware.accelerator, count=hardware.count, precision=hardware.precision)


def _basis(job: Job, spot: _Spot, used: Sequence[Sighting]) -> tuple[str, ...]:
    card = spot.place.card
    lines = [f"base: {job.guess.basis}", f"speed of {card.name}: {card.basis}"]
    here = [s for s in used if s.hardware.key == spot.hardware.key]
    if own := sum(s.measured.steps for s in here if s.run == job.run):
        lines.append(f"{own} steps of this run timed here")
    if runs := len({s.run for s in here if s.run != job.run}):
        lines.append(f"{runs} other run{'s' if runs > 1 else ''} timed here")
    return tuple(lines)
