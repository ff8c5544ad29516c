"""What a person asks of the journal of money: where it stands, and whether the providers' bills say the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from elias.domain.run import Run, Segment
from elias.domain.spend import Account, Cap, Caps, Claim, Used, day_after, month_after
from elias.errors import NotFound
from elias.ports.backend import Backend
from elias.ports.stores import RunStore, SpendStore
from elias.services.spend import Purse
from elias.units import FREE, Clock, Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A cap, a run or a backend with what counts against it."""

    name: str
    limit: Money | None
    spent: Money
    reserved: Money
    left: Money | None
    """None where nothing caps it."""
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    at: datetime
    caps: Sequence[Line]
    runs: Sequence[Line]
    backends: Sequence[Line]
    open: Sequence[Account]
    """Keys that hold money now."""


class Finding(StrEnum):
    SAME = "same"
    DIFFERS = "differs"
    UNKNOWN = "not in the journal"
    OPEN = "still open"
    OUTSIDE = "began before that time"
    NOT_BILLED = "not on the bill yet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One name on a bill or in the journal, in both."""

    backend: str
    name: str
    run: str
    billed: Money | None
    journal: Money
    finding: Finding

    @property
    def difference(self) -> Money:
        return (self.billed or FREE) - self.journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Books:
    store: SpendStore
    runs: RunStore
    clock: Clock

    def overview(self, caps: Caps) -> Overview:
        accounts, usage = self.store.accounts(), self.store.usage(self.clock.now())
        ends = {Cap.DAY: day_after(usage.at), Cap.MONTH: month_after(usage.at)}
        by_run = {run: _sum(a for a in accounts if a.claim.run == run) for run in _in_order(accounts, "run")}
        by_backend = {
            name: _sum(a for a in accounts if a.claim.backend == name) for name in _in_order(accounts, "backend")
        }
        return Overview(
            at=usage.at,
            caps=[
                replace(_line(cap, caps.of(cap), usage.of(cap)), until=ends.get(cap))
                for cap in Cap
                if cap is not Cap.RUN
            ],
            runs=[_line(run, self._limit_of(run, caps), used) for run, used in by_run.items()],
            backends=[_line(name, None, used) for name, used in by_backend.items()],
            open=[account for account in accounts if account.reserved > FREE],
        )

    def compare(self, backend: str, bill: Mapping[str, Money], since: datetime) -> Sequence[Compared]:
        """Names on the bill first, then keys that were settled since and are not on it."""
        accounts = [a for a in self.store.accounts() if a.claim.backend == backend]
        named = [self._compared(backend, name, billed, accounts, since) for name, billed in sorted(bill.items())]
        missing = [
            Compared(
                backend=backend,
                name=a.claim.key,
                run=a.claim.run,
                billed=None,
                journal=a.spent,
                finding=Finding.NOT_BILLED,
            )
            for a in accounts
            if a.last_at >= since and a.spent > FREE and a.claim.key not in bill and a.claim.run not in bill
        ]
        return [*named, *missing]

    def adjust(self, found: Compared) -> Money:
        """Write the difference down; what was written. Nothing for what cannot be compared yet."""
        if found.finding not in (Finding.DIFFERS, Finding.UNKNOWN) or found.billed is None:
            return FREE
        claim = Claim(key=found.name, run=found.run, backend=found.backend)
        return self.store.correct(claim, found.billed, self.clock.now(), f"the bill of {found.backend}")

    def settle_lost(self, places: Mapping[str, Backend]) -> Sequence[Segment]:
        """Ask after ended segments that still hold money, and give back what is held for none; those that were settled.

        What a run that is under way holds is left to whoever carries it.
        """
        purse, settled = Purse(store=self.store, clock=self.clock), []
        for name in _in_order([a for a in self.store.accounts() if a.reserved > FREE], "run"):
            run = self._run(name)
            if run is None or not run.state.is_standing:
                continue
            segments = self.runs.segments(run.id)
            for segment in purse.settle_late(run, segments, lambda: places):
                self.runs.put_segment(segment)
                settled.append(segment)
            purse.let_go_next(run, segments)
        return settled

    def _compared(
        self, backend: str, name: str, billed: Money, accounts: Sequence[Account], since: datetime
    ) -> Compared:
        ours = [a for a in accounts if name in (a.claim.key, a.claim.run)]
        run = ours[0].claim.run if ours else name
        journal = _sum(ours).spent
        if not ours:
            finding = Finding.UNKNOWN
        elif any(a.reserved > FREE for a in ours):
            finding = Finding.OPEN
        elif any(a.first_at < since for a in ours):
            finding = Finding.OUTSIDE
        else:
            finding = Finding.SAME if billed == journal else Finding.DIFFERS
        return Compared(backend=backend, name=name, run=run, billed=billed, journal=journal, finding=finding)

    def _limit_of(self, run: str, caps: Caps) -> Money | None:
        found = self._run(run)
        return replace(caps, own=found.bounds.budget).of(Cap.RUN) if found else None

    def _run(self, name: str) -> Run | None:
        try:
            return self.runs.get(name)
        except NotFound:  # another program's, or a name on a bill
            return None


def _line(name: str, limit: Money | None, used: Used) -> Line:
    left = None if limit is None else max(FREE, limit - used.spent - used.reserved)
    return Line(name=str(name), limit=limit, spent=used.spent, reserved=used.reserved, left=left)


def _sum(accounts: Iterable[Account]) -> Used:
    known = list(accounts)
    return Used(spent=sum((a.spent for a in known), FREE), reserved=sum((a.reserved for a in known), FREE))


def _in_order(accounts: Sequence[Account], what: str) -> Sequence[str]:
    return list(dict.fromkeys(getattr(account.claim, what) for account in accounts))
