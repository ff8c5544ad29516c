"""What all simulated places share: the Backend port over sessions that are arithmetic, and books that outlive a node.

Subclasses say what they offer and when a session may begin. A place knows the true time and the true speed; the node
sees neither but through what a real backend would tell it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentFailure, SegmentState
from elias.errors import BackendError, VerificationError
from elias.ports.backend import Bundle, Status
from elias.testing.places.session import Session, Terms, begun, checkpoint_digest, checkpoint_step
from elias.testing.places.world import Spell, World, WorldClock, spell_at
from elias.units import FREE, Money
from elias_trainer.contract import FailureKind, Job


@dataclass(frozen=True, slots=True)
class TrueSpeed:
    """Seconds; nobody in the simulation knows them but the place."""

    step_s: float
    load_s: float
    precision: str


Truth = Callable[[Job, Offer], TrueSpeed]


class Trouble(Protocol):
    """What a test does to a place's calls; raises, or stops the node right there."""

    def before(self, place: str, call: str) -> None: ...

    def after(self, place: str, call: str) -> None: ...


class NoTrouble:
    def before(self, place: str, call: str) -> None:
        pass

    def after(self, place: str, call: str) -> None:
        pass


@dataclass(kw_only=True)
class SimulatedPlace:
    name: str
    world: World
    clock: WorldClock
    truth: Truth
    outages: Sequence[Spell] = ()
    trouble: Trouble = field(default_factory=NoTrouble)
    sessions: dict[str, Session] = field(default_factory=dict)
    """By key: the place's own books."""

    # What a kind of place decides

    def now_offers(self, need: Need) -> Sequence[Offer]:
        raise NotImplementedError

    def admit(self, session: Session, offer: Offer) -> None:
        """Raises where it is not even taken into the queue."""

    def room(self, session: Session, at: datetime) -> datetime | None:
        """When it may begin, at `at` or later, by what is known at `at`; None is not yet known."""
        raise NotImplementedError

    def terms(self, session: Session, at: datetime, slot: int) -> Terms:
        raise NotImplementedError

    # The port

    def offers(self, need: Need) -> Sequence[Offer]:
        self._reach("offers")
        self.advance()
        found = self.now_offers(need)
        self.trouble.after(self.name, "offers")
        return found

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        self._reach("submit")
        self.advance()
        if key not in self.sessions:
            session = Session(
                key=key,
                job=bundle.job,
                variant=offer.variant,
                start_step=_start(bundle),
                submitted_at=self.clock.now(),
            )
            self.admit(session, offer)
            self.sessions[key] = session
            self.advance()
        self.trouble.after(self.name, "submit")
        return key

    def poll(self, handle: str) -> Status:
        """As the real ones do, it keeps silent about a place out of reach: what goes on there is not given up."""
        try:
            self._reach("poll")
        except BackendError as error:
            return self._as_last_known(handle, error)
        self.advance()
        session, now = self.sessions.get(handle), self.clock.now()
        if session is None:
            message = f"{self.name} knows no segment {handle!r}"
            failure = SegmentFailure(kind=FailureKind.INFRASTRUCTURE, message=message, fix="elias run resume")
            return Status(state=SegmentState.FAILED, failure=failure)
        state = session.state(now)
        self.trouble.after(self.name, "poll")
        return Status(
            state=state,
            accelerator=session.terms.accelerator if session.terms else None,
            started_at=None if state is SegmentState.PENDING else session.begins_at,
            ended_at=session.ends_at if state.is_final else None,
            cost=self.cost(session, now),
            failure=session.failure(now),
            note="waits for its turn" if state is SegmentState.PENDING else None,
        )

    def fetch(self, handle: str, into: Path) -> None:
        """From the node's own disk: what a session left was brought there by the poll that saw its end."""
        self.trouble.before(self.name, "fetch")
        if (session := self.sessions.get(handle)) is not None:
            session.write(self.clock.now(), into)
        self.trouble.after(self.name, "fetch")

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        try:
            self._reach("events")
        except BackendError:
            return
        session = self.sessions.get(handle)
        yield from (e for e in session.events(self.clock.now()) if e["seq"] > after) if session else ()

    def cancel(self, handle: str) -> None:
        self._reach("cancel")
        self.advance()
        session, now = self.sessions.get(handle), self.clock.now()
        if session is not None and not session.state(now).is_final:
            self.sessions[handle] = replace(session, cancelled_at=now)
        self.trouble.after(self.name, "cancel")

    def find(self, key: str) -> str | None:
        self._reach("find")
        return key if key in self.sessions else None

    # Its books

    def cost(self, session: Session, now: datetime) -> Money:
        return session.cost(now)

    def billed(self, since: datetime, until: datetime) -> Mapping[str, Money]:
        """All that it ever charged, by key; of the sessions that have ended."""
        self.advance()
        now = self.clock.now()
        ended = {key: session for key, session in self.sessions.items() if session.state(now).is_final}
        return {key: cost for key, session in ended.items() if (cost := self.cost(session, now)) > FREE}

    def next_change(self, handle: str) -> datetime | None:
        """When a poll may say something else than now; None for what it does not know."""
        self.advance()
        session, now = self.sessions.get(handle), self.clock.now()
        if session is None:
            return None
        if session.begins_at is None:
            moments = [*(other.ends_at for other in self.taken(now)), *self.turns(now)]
        else:
            moments = [session.begins_at, session.ends_at]
        return min((at for at in [*moments, *self._next_outage(now)] if at is not None and at > now), default=now)

    def turns(self, now: datetime) -> Iterator[datetime]:
        """When one that waits may begin, besides at the end of another."""
        yield from ()

    def out_until(self) -> datetime | None:
        """None while it can be reached."""
        spell = spell_at(self.outages, self.clock.now())
        return spell.ends if spell else None

    def taken(self, at: datetime) -> Sequence[Session]:
        """Those that have a machine at `at`, or are about to."""
        return [s for s in self.sessions.values() if s.begins_at and s.ends_at and at < s.ends_at]

    def waiting(self) -> Iterator[Session]:
        return (s for s in self.sessions.values() if s.begins_at is None and s.cancelled_at is None)

    def begin(self, session: Session, at: datetime) -> None:
        """On the lowest machine that is free by then."""
        used = {other.slot for other in self.taken(at) if other.variant == session.variant}
        slot = next(number for number in range(len(used) + 1) if number not in used)
        self.sessions[session.key] = begun(session, at, slot, self.terms(session, at, slot))

    def speed(self, job: Job, offer: Offer) -> TrueSpeed:
        return self.truth(job, offer)

    def advance(self) -> None:
        """Begin what waited, at the moments at which it could, oldest first."""
        while True:
            rooms = [(self.room(session, self.clock.now()), session) for session in self.waiting()]
            open_ones = [(at, s.submitted_at, s.key, s) for at, s in rooms if at is not None and at <= self.clock.now()]
            if not open_ones:
                return
            at, _, _, session = min(open_ones, key=lambda found: (found[1], found[2]))
            self.begin_now(session, at)

    def begin_now(self, session: Session, at: datetime) -> None:
        raise NotImplementedError

    def _reach(self, call: str) -> None:
        self.trouble.before(self.name, call)
        if self.out_until() is not None:
            raise BackendError(f"{self.name} cannot be reached", fix="wait; it is tried again")

    def _as_last_known(self, handle: str, error: BackendError) -> Status:
        session, now = self.sessions.get(handle), self.clock.now()
        is_begun = session is not None and session.begins_at is not None and session.begins_at <= now
        return Status(
            state=SegmentState.RUNNING if is_begun else SegmentState.PENDING,
            started_at=session.begins_at if session is not None and is_begun else None,
            note=f"{error.what}; it is asked again",
        )

    def _next_outage(self, now: datetime) -> Iterator[datetime]:
        found = next((spell for spell in self.outages if spell.begins > now), None)
        if found:
            yield found.begins


def delay(world: World, place: str, key: str, median_s: float) -> timedelta:
    """From taking a segment to its trainer's start: log-normal."""
    return timedelta(seconds=round(world.random("delay", place, key).lognormvariate(0.0, 0.4) * median_s, 3))


def _start(bundle: Bundle) -> int:
    """The step that its checkpoint holds. Raises VerificationError when that is not the one that was promised."""
    job = bundle.job
    if job.checkpoint is None:
        return 0
    step = checkpoint_step(bundle.folder / job.checkpoint.path, job.run)
    if checkpoint_digest(job.run, step) != job.checkpoint.digest:
        raise VerificationError(f"{job.segment} brought another checkpoint", fix="elias run resume")
    return step
