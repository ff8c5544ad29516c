"""Pays for segments: reserves before one is launched, settles by what it cost, and says what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.domain.plan import Plan, PlannedSegment
from elias.domain.run import Run, Segment
from elias.domain.spend import (
    COMPUTE,
    EXTRA,
    Cap,
    Caps,
    Claim,
    Part,
    Room,
    enough,
    held,
    is_open,
    over_budget,
    rooms,
    tightest,
    total,
)
from elias.errors import EliasError, NotStarted, OverBudget, Refused, WorldError
from elias.ports.backend import Backend, Status
from elias.ports.stores import SpendStore
from elias.units import FREE, Clock, Money

LOOK_AGAIN = timedelta(minutes=15)
"""A run that waits at a cap plans again so often, since somebody may have raised it or given money back."""
SHORTEST = timedelta(minutes=2)
"""Below this a paid segment is spent on loading the base."""
PLENTY = Money.usd(1_000_000)
"""Lifts the budget to learn whether money alone is in the way; never reserved."""
_TRIES = 3


def cost_parts(offer: Offer, span: timedelta) -> Sequence[Part]:
    """What a segment of that length is reserved at: its hours at the full price, and what comes once."""
    return [Part(name=COMPUTE, amount=offer.hourly.for_hours(span)), Part(name=EXTRA, amount=offer.once)]


def affordable(offer: Offer, money: Money) -> timedelta | None:
    """The longest segment that `money` buys, in whole seconds; None has no limit."""
    if offer.hourly == FREE:
        return None
    left = max(0, (money - offer.once).micro_usd)
    return timedelta(seconds=left * 3600 // offer.hourly.micro_usd)


def shortest_cost(planned: PlannedSegment) -> Money:
    """Of the shortest segment that is worth it there."""
    return total(cost_parts(planned.offer, shortest_span(planned)))


def shortest_span(planned: PlannedSegment) -> timedelta:
    """No less is bought of it."""
    return max(min(SHORTEST, planned.span or SHORTEST), planned.offer.shortest)


def is_certain(error: EliasError, *, was_sent: bool) -> bool:
    """Whether an error of `submit` says that nothing was begun; `was_sent` says that it may have been begun before."""
    return isinstance(error, NotStarted) or not (was_sent or isinstance(error, WorldError))


@dataclass(frozen=True, kw_only=True, slots=True)
class AtCap:
    """A run that may not spend what it needs now."""

    run: str
    room: Room
    needed: Money
    until: datetime | None
    """When it goes on by itself; None is not before somebody raises the cap."""

    @property
    def reason(self) -> str:
        return self._words(over_budget(self.room, self.needed).fix, f"; then: elias run resume {self.run}")

    @property
    def reason_beforehand(self) -> str:
        """Of a run that has not begun: its budget is an option still, and there is nothing to resume."""
        own = f"--budget {enough(self.room, self.needed)}"
        return self._words(own if self.room.setting == self.run else over_budget(self.room, self.needed).fix, "")

    def _words(self, fix: str, then: str) -> str:
        what = over_budget(self.room, self.needed).what
        if self.until is None:
            return f"{what} (fix: {fix}{then})"
        return f"{what}; goes on at {self.until:%Y-%m-%d %H:%M} UTC (sooner: {fix})"


def at_cap(found: Sequence[Room], needed: Money, run: str, now: datetime) -> AtCap | None:
    """What the caps mean for a run that needs that much; None where they allow it."""
    waits = [(room, _opens_at(room, needed, now)) for room in found if room.left < needed]
    if not waits:
        return None
    room, until = min(waits, key=lambda wait: (wait[1] is not None, -(wait[1] or now).timestamp()))
    return AtCap(run=run, room=room, needed=needed, until=until)


def kept_by_cap(found: Sequence[Room], rich: Plan, run: str, now: datetime) -> AtCap | None:
    """What keeps a run from `rich`, its plan if money were plenty; None where money is not in the way."""
    if not rich.segments:
        return None
    least = at_cap(found, shortest_cost(rich.segments[0]), run, now)
    return least or (at_cap(_for_good(found), rich.reserve, run, now) if rich.reserve < PLENTY else None)


def _for_good(found: Sequence[Room]) -> Sequence[Room]:
    """Those that do not begin anew: all that a run will ever have."""
    return [room for room in found if room.until is None]


def _opens_at(room: Room, needed: Money, now: datetime) -> datetime | None:
    if room.waits_for_others(needed):
        return now + LOOK_AGAIN
    return room.until if room.limit >= needed else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Purse:
    """What a coordinator pays from. Without a store nothing that costs money is ever begun.

    All of it is safe to repeat and over several nodes: what was reserved under a segment's key is found again there.
    """

    store: SpendStore | None = None
    caps: Callable[[], Caps] = Caps
    """Read anew at every use, so that a cap that was changed holds at once."""
    clock: Clock | None = None

    def rooms(self, run: Run, key: str | None = None) -> Sequence[Room] | None:
        """What each cap leaves for that run, `key` being what is to be reserved; None where the run may not spend."""
        caps = self._caps(run)
        if self.store is None or caps.of(Cap.RUN) is None:
            return None
        return rooms(caps, self.store.usage(self._now(), run.id, without=key), run.id)

    def of_node(self, run: Run) -> Sequence[Room]:
        """What each cap of the node leaves for that run, whatever its own budget is."""
        return rooms(self.caps(), self.store.usage(self._now(), run.id), run.id) if self.store else ()

    def left(self, run: Run, key: str | None = None) -> Money | None:
        """What a plan of the whole run may spend; None where it may spend nothing.

        By the run's and the account's caps; a day's and a month's begin anew, they only shorten or delay a segment.
        """
        room = tightest(_for_good(self.rooms(run, key) or ()))
        return room.left if room else None

    def choose(self, run: Run, key: str, plan_for: Callable[[Money | None], Plan]) -> tuple[Plan, AtCap | None]:
        """The plan that the caps allow now, and the cap that keeps the run from beginning; `plan_for` takes a budget.

        Where a day's or month's cap stands in the way, what costs nothing is taken before the run waits.
        """
        plan, found = plan_for(self.left(run, key)), self.rooms(run, key)
        if found is None:
            return plan, None
        if not plan.segments:
            return plan, kept_by_cap(found, plan_for(PLENTY), run.id, self._now())
        if plan.wait_until is not None or not plan.segments[0].offer.is_paid:
            return plan, None
        capped = at_cap(found, shortest_cost(plan.segments[0]), run.id, self._now())
        if capped is None:
            return plan, None
        free = plan_for(None)
        return (free, None) if free.segments and free.wait_until is None else (free, capped)

    def held(self, key: str) -> Money:
        return held(self.store.entries(key=key)) if self.store else FREE

    def secure(self, run: Run, key: str, planned: PlannedSegment) -> PlannedSegment:
        """Reserve for a planned segment; it comes back no longer than what is reserved will pay for.

        Raises OverBudget where not even the shortest one can be paid, Refused where the run may not spend.
        """
        if not planned.offer.is_paid:
            self.let_go(run, key, "it goes to a place that costs nothing")
            return planned
        for _ in range(_TRIES):
            left = self._must_spend(run, key)
            bought = affordable(planned.offer, left)
            span = min((s for s in (planned.span, bought) if s is not None), default=None)
            if span is None or span < shortest_span(planned):
                break
            parts = _at_least(cost_parts(planned.offer, span), min(planned.reserve, left))
            try:
                reserved = self._reserve(run, key, planned.offer.backend, parts)
            except OverBudget:  # another run was quicker: what is left now may still do
                continue
            return replace(planned, span=span, reserve=reserved)
        raise self._refusal(run, key, planned)

    def secure_again(self, run: Run, segment: Segment, offer: Offer) -> bool:
        """Just before it is sent: at least what the offer asks now is held; whether it costs anything.

        Raises OverBudget where its price has risen too far, Refused where the run may not spend.
        """
        if not offer.is_paid:
            return self.held(segment.key) > FREE
        if segment.planned_for is None:
            raise Refused(
                f"{segment.key} costs {offer.hourly} an hour and has no end", fix=f"elias run resume {run.id}"
            )
        self._must_spend(run, segment.key)
        self._reserve(run, segment.key, offer.backend, cost_parts(offer, segment.planned_for))
        return True

    def close(self, segment: Segment, status: Status) -> None:
        """Settle with what it cost and give the rest back; nothing happens while that is not final."""
        if self.store is None or not status.cost_is_final:
            return
        bill = [Part(name=COMPUTE, amount=status.cost)]
        self.store.settle(_claim(segment), bill, self._now(), str(status.state))

    def let_go_next(self, run: Run, segments: Sequence[Segment]) -> None:
        """What a crash may have left between reserving for the next segment and writing that one down."""
        number = max((segment.number for segment in segments), default=0) + 1
        self.let_go(run, Segment(run=run.id, number=number, backend="").key, "it was not begun")

    def let_go(self, run: Run, key: str, why: str) -> None:
        """Give back what is held for a segment that was never written down, and so never launched."""
        if self.store and (lines := self.store.entries(key=key)) and is_open(lines):
            claim = Claim(key=key, run=run.id, backend=lines[-1].backend)
            self.store.settle(claim, (), self._now(), why)

    def settle_late(
        self, run: Run, segments: Sequence[Segment], places: Callable[[], Mapping[str, Backend]]
    ) -> Sequence[Segment]:
        """Ask again after ended segments whose cost was not known then; those that it is known of now, with it."""
        if self.store is None:
            return []
        kept = {a.claim.key for a in self.store.accounts() if a.claim.run == run.id and a.reserved > FREE}
        lost = [s for s in segments if s.key in kept and s.state.is_final and s.handle]
        backends = places() if lost else {}
        found = [(segment, backends[segment.backend]) for segment in lost if segment.backend in backends]
        return [settled for segment, place in found if (settled := self._ask_after(segment, place))]

    def _ask_after(self, segment: Segment, backend: Backend) -> Segment | None:
        try:
            status = backend.poll(segment.handle or "")
            if not status.state.is_final:  # nobody waits for it any more
                backend.cancel(segment.handle or "")
                return None
        except EliasError:
            return None  # the place is still out of reach: all stays reserved
        if not status.cost_is_final:
            return None
        self.close(segment, status)
        return replace(segment, cost=status.cost)

    def _reserve(self, run: Run, key: str, backend: str, parts: Sequence[Part]) -> Money:
        assert self.store is not None
        return self.store.reserve(Claim(key=key, run=run.id, backend=backend), parts, self._caps(run), self._now())

    def _must_spend(self, run: Run, key: str) -> Money:
        room = tightest(self.rooms(run, key) or ())
        if room is None:
            raise Refused(
                f"{run.id} may not spend money", fix=f"give it a budget: elias budget set {run.id} 5usd, then resume it"
            )
        return room.left

    def _refusal(self, run: Run, key: str, planned: PlannedSegment) -> OverBudget:
        needed = shortest_cost(planned)
        room = tightest(self.rooms(run, key) or ())
        assert room is not None
        return over_budget(room, needed)

    def _caps(self, run: Run) -> Caps:
        return replace(self.caps(), own=run.bounds.budget)

    def _now(self) -> datetime:
        assert self.clock is not None
        return self.clock.now()


EMPTY = Purse()
"""Pays for nothing."""


def _claim(segment: Segment) -> Claim:
    return Claim(key=segment.key, run=segment.run, backend=segment.backend)


def _at_least(parts: Sequence[Part], amount: Money) -> Sequence[Part]:
    lacking = amount - total(parts)
    if lacking <= FREE:
        return parts
    return [replace(part, amount=part.amount + lacking) if part.name == COMPUTE else part for part in parts]
