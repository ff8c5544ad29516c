"""Simulated places with the rules that matter to a plan: like Kaggle, like SageMaker, like this machine.

Figures from the services' own documents where the adapters have them (weekly hours, session limit, prices); what is
assumed says so in docs/planner-bench.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from elias.domain.habit import Habit
from elias.domain.offer import Need, Offer
from elias.domain.tier import GIB
from elias.errors import QuotaExhausted
from elias.ports.backend import Quota
from elias.testing.places.place import SimulatedPlace, delay
from elias.testing.places.session import Session, Terms
from elias.testing.places.world import HOUR, START, WEEK, Spell, next_spell, spell_at
from elias.units import FREE, Money

MINUTE = timedelta(minutes=1)


@dataclass(kw_only=True)
class LikeKaggle(SimulatedPlace):
    """Two T4s for nothing: hours by the week, two sessions at once, 12 h at a stretch, and sessions that die."""

    least: timedelta = 30 * HOUR
    extra: timedelta = 12 * HOUR
    session_limit: timedelta = 12 * HOUR - 10 * MINUTE
    sessions_at_once: int = 2
    deaths_per_hour: float = 0.01

    def now_offers(self, need: Need) -> Sequence[Offer]:
        quota = self._quota(self.clock.now())
        left = max(timedelta(0), quota.allowed - quota.used - quota.reserved)
        return [replace(_KAGGLE, backend=self.name, longest=self.session_limit, left=left,
                        refreshes_at=quota.refreshes_at, concurrency=self.sessions_at_once)]  # fmt: skip

    def quota(self) -> Quota:
        self._reach("quota")
        self.advance()
        return self._quota(self.clock.now())

    def room(self, session: Session, at: datetime) -> datetime | None:
        """Once a session is free and the week has the hours that it wants."""
        free = session.submitted_at
        while free <= at:
            if len(self.taken(free)) < self.sessions_at_once and self._fits(session, free):
                return free
            ends = [s.ends_at for s in self.taken(free) if s.ends_at is not None]
            free = min([*ends, _week_end(free)])
        return None

    def turns(self, now: datetime) -> Iterator[datetime]:
        yield _week_end(now)

    def begin_now(self, session: Session, at: datetime) -> None:
        # the queue takes no session, and its minutes are not counted
        begins = at + delay(self.world, self.name, session.key, 180)
        self.begin(session, begins)

    def terms(self, session: Session, at: datetime, slot: int) -> Terms:
        offer = replace(_KAGGLE, backend=self.name)
        true = self.speed(session.job, offer)
        dies = self.world.interruption(f"{self.name} {slot}", self.deaths_per_hour, at)
        return Terms(
            step_s=true.step_s, load_s=true.load_s, precision=true.precision, accelerator=offer.accelerator,
            count=offer.accelerator_count, taken_at=min(dies or at + 12 * HOUR, at + 12 * HOUR),
        )  # fmt: skip

    def _fits(self, session: Session, at: datetime) -> bool:
        quota = self._quota(at)
        wants = timedelta(seconds=min(session.job.limits.seconds or 1e9, self.session_limit.total_seconds()))
        return quota.allowed - quota.used - quota.reserved >= wants

    def _quota(self, at: datetime) -> Quota:
        """By the week in which a session began; a running one reserves what its limit may still take."""
        week = (at - START) // WEEK
        own = [s for s in self.sessions.values() if s.begins_at and (s.begins_at - START) // WEEK == week]
        used = sum((s.hours(at) for s in own), 0.0) * HOUR
        alive = [s for s in own if s.begins_at and s.ends_at and at < s.ends_at]
        limits = [min(timedelta(seconds=s.job.limits.seconds or 43200.0), 12 * HOUR) for s in alive]
        spent = [max(timedelta(0), at - s.begins_at) for s in alive if s.begins_at]
        reserved = sum((max(timedelta(0), limit - gone) for limit, gone in zip(limits, spent, strict=True)), 0 * HOUR)
        return Quota(
            used=used, reserved=reserved, allowed=self.world.quota(week, self.least, self.extra),
            refreshes_at=START + (week + 1) * WEEK, running=len(alive), concurrency=self.sessions_at_once,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rented:
    name: str
    gpu: str
    memory_bytes: int
    hourly: Money


@dataclass(kw_only=True)
class LikeSageMaker(SimulatedPlace):
    """Machines by the second, on demand and on spot, a quota of machines for each; spot is taken away now and then."""

    kinds: Sequence[Rented] = ()
    on_demand_at_once: int = 2
    spot_at_once: int = 2
    interruptions_per_hour: float = 0.05
    grace: timedelta = 2 * MINUTE

    def now_offers(self, need: Need) -> Sequence[Offer]:
        return [self._offer(kind, spot) for kind in self.kinds for spot in (False, True)]

    def admit(self, session: Session, offer: Offer) -> None:
        now = self.clock.now()
        alive = [s for s in self.sessions.values() if s.variant == session.variant and not s.state(now).is_final]
        if len(alive) >= self._at_once(session.variant):
            raise QuotaExhausted(f"all machines of {session.variant} are taken", fix="wait, or ask AWS for more")

    def room(self, session: Session, at: datetime) -> datetime | None:
        return session.submitted_at

    def begin_now(self, session: Session, at: datetime) -> None:
        self.begin(session, at + delay(self.world, self.name, session.key, 240))

    def terms(self, session: Session, at: datetime, slot: int) -> Terms:
        name, spot = session.variant.removesuffix(" spot"), session.variant.endswith(" spot")
        offer = self._offer(next(kind for kind in self.kinds if kind.name == name), spot)
        true = self.speed(session.job, offer)
        limit = at + timedelta(seconds=session.job.limits.seconds or 432000.0) + self.grace
        rate = self.interruptions_per_hour if spot else 0.0
        lost = self.world.interruption(f"{session.variant} {slot}", rate, at)
        # what its hour costs is settled when it begins
        share = self.world.share(name, at) if spot else 1.0
        return Terms(
            step_s=true.step_s, load_s=true.load_s, precision=true.precision, accelerator=offer.accelerator,
            count=1, hourly=Money(round(offer.hourly.micro_usd * share)), taken_at=min(lost or limit, limit),
        )  # fmt: skip

    def _at_once(self, variant: str) -> int:
        return self.spot_at_once if variant.endswith(" spot") else self.on_demand_at_once

    def _offer(self, kind: Rented, spot: bool) -> Offer:
        variant = f"{kind.name} spot" if spot else kind.name
        share = self.world.share(kind.name, self.clock.now())
        return Offer(
            backend=self.name, variant=variant, accelerator=f"{kind.name} ({kind.gpu})", accelerator_count=1,
            memory_bytes=kind.memory_bytes, tflops=None, hourly=kind.hourly,
            once=kind.hourly.for_hours(self.grace),
            likely_hourly=Money(round(kind.hourly.micro_usd * share)) if spot else None,
            interruptions_per_hour=self.interruptions_per_hour if spot else 0.0,
            longest=5 * 24 * HOUR, left=None, concurrency=self._at_once(variant),
            start_delay=5 * MINUTE, needs_encryption=True, seals_private=True,
        )  # fmt: skip


@dataclass(kw_only=True)
class LikeThisMachine(SimulatedPlace):
    """One GPU that inference wants for hours: training pauses then, with a checkpoint, and its offer is refused.

    As on a real one nobody is told when inference will have done; one that waits for its turn then is handed back.
    """

    gpu: str = "NVIDIA GeForce RTX 3060"
    calm: timedelta = HOUR
    """While it is held it says that asking again is worth it after so long."""
    known: tuple[Habit, datetime] = (Habit(zone=UTC), START)
    """When inference usually has it, as was seen until then."""

    def now_offers(self, need: Need) -> Sequence[Offer]:
        now = self.clock.now()
        offer = replace(self._offer(), habit=self._habit(now))
        if spell_at(self.world.inference(), now) is None:
            return [offer]
        return [replace(offer, refused="inference needs this machine", refused_until=now + self.calm)]

    def _habit(self, now: datetime) -> Habit:
        """What this machine has seen of itself, up to the last whole hour; of inference under way once that is over."""
        seen, until = self.known
        while until + HOUR <= now and spell_at(self.world.inference(), now) is None:
            self.known = seen, until = _seen_in_an_hour(seen, until, self.world.inference()), until + HOUR
        return seen

    def room(self, session: Session, at: datetime) -> datetime | None:
        free = session.submitted_at
        while free <= at:
            busy = spell_at(self.world.inference(), free)
            if busy is None and not self.taken(free):
                return free
            free = min([s.ends_at for s in self.taken(free) if s.ends_at], default=busy.ends if busy else free)
        return None

    def turns(self, now: datetime) -> Iterator[datetime]:
        later = next_spell(self.world.inference(), now)
        yield later.begins if later else now + HOUR

    def advance(self) -> None:
        super().advance()
        now = self.clock.now()
        if spell_at(self.world.inference(), now) is not None:
            for session in list(self.waiting()):
                self.sessions[session.key] = replace(session, cancelled_at=now, made_way=True)

    def begin_now(self, session: Session, at: datetime) -> None:
        self.begin(session, at)

    def terms(self, session: Session, at: datetime, slot: int) -> Terms:
        true, offer = self.speed(session.job, self._offer()), self._offer()
        wanted = next_spell(self.world.inference(), at)
        return Terms(
            step_s=true.step_s, load_s=true.load_s, precision=true.precision, accelerator=offer.accelerator,
            count=1, yields_at=wanted.begins if wanted else None,
        )  # fmt: skip

    def _offer(self) -> Offer:
        return Offer(
            backend=self.name, accelerator=self.gpu, accelerator_count=1, memory_bytes=12 * GIB, tflops=None,
            hourly=FREE, longest=None, left=None,
        )  # fmt: skip


_KAGGLE = Offer(
    backend="kaggle", accelerator="NvidiaTeslaT4", accelerator_count=2, memory_bytes=15 * GIB, tflops=None,
    hourly=FREE, longest=12 * HOUR, left=timedelta(0), start_delay=5 * MINUTE, needs_encryption=True,
    seals_private=True,
)  # fmt: skip

RENTED = (
    Rented("ml.g4dn.xlarge", "NVIDIA T4", 16 * GIB, Money.usd("0.7364")),
    Rented("ml.g5.xlarge", "NVIDIA A10G", 24 * GIB, Money.usd("1.408")),
)
"""Training prices of us-east-1, as docs/sagemaker.md has them."""


def _seen_in_an_hour(habit: Habit, since: datetime, spells: Sequence[Spell]) -> Habit:
    at, until = since, since + HOUR
    while at < until:
        spell, later = spell_at(spells, at), next_spell(spells, at)
        ends = min(until, spell.ends if spell else later.begins if later else until)
        habit, at = habit.after(at, ends, taken=spell is not None), ends
    return habit


def _week_end(at: datetime) -> datetime:
    return START + ((at - START) // WEEK + 1) * WEEK
