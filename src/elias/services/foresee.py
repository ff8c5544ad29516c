"""What lies before a run: its places' offers now, and how long its work takes there by all that was seen so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from elias.domain.corpus import Corpus
from elias.domain.offer import Need, Offer
from elias.domain.run import Run, RunState, Segment
from elias.ports.backend import Backend, HasQuota
from elias.ports.stores import BlobStore, RunStore
from elias.services.estimate import Known, forecasts
from elias.services.eta import eta
from elias.services.foretell import foretold
from elias.services.planner.outlook import WANTED, Outlook, Sight, place_name
from elias.services.planner.problem import Commitment
from elias.services.sightings import Seen, SegmentStory, what_was_seen
from elias.services.silent import offers_of
from elias.services.workload import Work, work_of_corpus
from elias.units import Clock, Money
from elias_trainer.contract import Digest, FailureKind, Recipe

NO_QUOTA_WAIT = timedelta(hours=1)
"""Before an offer that was refused for want of a quota is asked again; other offers are not kept waiting by it."""
OVERDUE = timedelta(minutes=5)
"""That a segment goes on at least, which nobody has seen end: its session is not free before that."""
NEWEST_SEGMENTS = 60
"""Whose events are read to learn from; older ones say little about today's places."""


def seen_so_far(runs: RunStore) -> Seen:
    """From the newest segments in the store."""
    return what_was_seen(_stories(runs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Foresight:
    runs: RunStore
    blobs: BlobStore
    clock: Clock
    checkpoint_every: timedelta
    seen: Callable[[], Seen] = Seen
    """Of the places, in this node's store."""
    works: dict[tuple[Digest, Recipe, str], Work] = field(default_factory=dict, repr=False)
    """By corpus, recipe and base: what was read before."""

    def outlook(
        self, past: tuple[Run, Sequence[Segment], Corpus], places: Mapping[str, Backend], budget: Money | None
    ) -> Outlook:
        """From now on; `past` is the run, its segments so far and its corpus. Raises BackendError."""
        run, segments, corpus = past
        events = {segment.key: self.runs.events(segment.key) for segment in segments}
        seen = self.seen()
        known = Known(seen=seen, work=None if any(events.values()) else self._work(run, corpus))
        need = self.need(run, corpus)
        every = run.checkpoint_every or self.checkpoint_every
        now = self.clock.now()
        asked = offers_of(places, need, now)
        found = [(refused_of_late(offer, segments, now), place) for offer, place in asked]
        told = forecasts(run, segments, events, [offer for offer, _ in found], known)
        return Outlook(
            run=run,
            now=now,
            sights=[
                Sight(offer=foretold(offer, likely, every), forecast=likely, refill=_refill(offer, place))
                for (offer, place), likely in zip(found, told, strict=True)
            ],
            budget=budget,
            seen=seen,
            wanted=run.bounds.chance or WANTED,
            checkpoint_every=every,
            commitments=tuple(self.commitments(run.id)),
        )

    def whole(self, run: Run, corpus: Corpus, offers: Sequence[Offer]) -> Sequence[Offer]:
        """How long all of a run would take on each, and for how much, as if nothing were done yet."""
        known = Known(seen=self.seen(), work=self._work(run, corpus))
        every = run.checkpoint_every or self.checkpoint_every
        told = forecasts(run, (), {}, offers, known)
        return [foretold(offer, likely, every) for offer, likely in zip(offers, told, strict=True)]

    def need(self, run: Run, corpus: Corpus) -> Need:
        size = self.blobs.path(corpus.train).stat().st_size
        return Need(base=run.base, recipe=run.recipe, label=run.label, corpus_bytes=size, instance=run.instance)

    def commitments(self, run_id: str | None = None) -> Iterator[Commitment]:
        """What other runs of this node train on now, until they are done or their segment is over; then those behind.

        A run that waits with a segment sent stands in a place's queue: it begins when one of those before it ends.
        """
        now, ends = self.clock.now(), dict[str, list[datetime]]()
        everyone = self.runs.list()
        node = next((run.node for run in everyone if run.id == run_id), None)
        runs = [other for other in everyone if other.id != run_id and node in (None, other.node)]
        for state in (RunState.RUNNING, RunState.WAITING):
            for other in sorted((other for other in runs if other.state is state), key=lambda run: run.created_at):
                for segment in self.runs.segments(other.id)[-1:]:
                    until = self._until(other, segment, now)
                    if until is None:
                        continue
                    until = max(until, now + OVERDUE)
                    place = place_name(segment.backend, segment.offer)
                    before = ends.setdefault(place, [])
                    begins = now
                    if state is RunState.WAITING and before:
                        begins = before.pop(before.index(min(before)))
                        until = begins + (segment.planned_for or until - now)
                    before.append(until)
                    yield Commitment(place=place, starts_at=begins, span=until - begins, is_in_quota=True)

    def busy_until(self, run: Run) -> datetime | None:
        """When the segment under way ends; None where there is none, or nobody knows."""
        last = self.runs.segments(run.id)[-1:]
        return self._until(run, last[0], self.clock.now()) if last else None

    def _until(self, run: Run, segment: Segment, now: datetime) -> datetime | None:
        """None where it has ended, or where nobody knows when it will."""
        if segment.state.is_final:
            return None
        told = eta(run, segment, self.runs.events(segment.key), now)
        moments = [now + timedelta(seconds=told.seconds.high)] if told else []
        if segment.planned_for is not None:
            moments.append((segment.started_at or now) + segment.planned_for)
        return min(moments, default=None)

    def _work(self, run: Run, corpus: Corpus) -> Work:
        """Before a trainer has counted it; each corpus is read once."""
        key = corpus.train, run.recipe, run.base.reference
        if key not in self.works:
            with self.blobs.open(corpus.train) as lines:
                self.works[key] = work_of_corpus(lines, run.recipe, run.base.reference)
        return self.works[key]


def refused_of_late(offer: Offer, segments: Sequence[Segment], now: datetime) -> Offer:
    """The offer, refused while it is too early to ask for it again: one of a run's segments had no quota there."""
    if offer.refused:
        return offer
    name = place_name(offer.backend, offer.variant)
    for segment in segments:
        if segment.failure is None or segment.failure.kind is not FailureKind.QUOTA:
            continue
        until = (segment.ended_at or now) + NO_QUOTA_WAIT
        if until > now and place_name(segment.backend, segment.offer) == name:
            return replace(offer, refused=segment.failure.message, refused_until=until)
    return offer


def _stories(runs: RunStore) -> Iterator[SegmentStory]:
    left = NEWEST_SEGMENTS
    for run in runs.list():
        for segment in reversed(runs.segments(run.id)):
            if left == 0:
                return
            left -= 1
            yield SegmentStory(run=run, segment=segment, events=runs.events(segment.key))


def _refill(offer: Offer, place: Backend) -> timedelta | None:
    """What the place's quota holds after a refresh; None where it does not say."""
    if offer.left is None or offer.refused or not isinstance(place, HasQuota):
        return None
    return place.quota().allowed
