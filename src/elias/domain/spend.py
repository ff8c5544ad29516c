"""Money: what was reserved, billed and given back, line by line, and the caps that no sum of it passes.

A reservation is opened under a key before anything is launched, and closed once by what the bill says. The journal is
only ever added to. For each key, whenever one looks: reserved + overrun = settled + released + what is still held.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from elias.errors import OverBudget
from elias.units import FREE, Money

COMPUTE = "compute"
"""The part of a cost that is hours of a machine."""
EXTRA = "extra"
"""The part that comes once: storage, transfer, seconds of grace."""


class EntryKind(StrEnum):
    RESERVE = "reserve"
    OVERRUN = "overrun"
    """Billed above what was reserved: named, since the bill is what it is."""
    SETTLE = "settle"
    """Billed."""
    RELEASE = "release"
    """Given back; the line that closes a reservation, of nothing where all was used."""
    ADJUST = "adjust"
    """A correction of what was billed, from the provider's own bill; below zero where that says less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Whose money it is."""

    key: str
    """The segment's key; each is reserved and settled once."""
    run: str
    backend: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One kind of cost within a reservation or a bill."""

    name: str
    amount: Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the journal."""

    number: int
    kind: EntryKind
    key: str
    part: str
    amount: Money
    at: datetime
    run: str
    backend: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """All lines of one key, added up."""

    claim: Claim
    spent: Money
    reserved: Money
    """Still held; nothing once the key is closed."""
    first_at: datetime
    last_at: datetime


class Cap(StrEnum):
    RUN = "run"
    DAY = "day"
    MONTH = "month"
    ACCOUNT = "account"
    """All that the journal ever held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """None caps nothing. Days and months are UTC's."""

    run: Money | None = None
    """Of any one run; what lets a run spend at all, unless it brings a budget of its own."""
    own: Money | None = None
    """The budget that the run in question brought along; it never lifts `run`."""
    day: Money | None = None
    month: Money | None = None
    account: Money | None = None

    def of(self, cap: Cap) -> Money | None:
        runs = [limit for limit in (self.run, self.own) if limit is not None]
        limits = {Cap.RUN: min(runs, default=None), Cap.DAY: self.day, Cap.MONTH: self.month, Cap.ACCOUNT: self.account}
        return limits[cap]


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """`spent` is billed for certain, `reserved` may still be."""

    spent: Money = FREE
    reserved: Money = FREE


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What counts against each cap at `at`.

    A reservation counts in full in every day and month in which it is open, a bill in those in which it was settled.
    So neither what was settled in a day nor what was used up in it passes the day's cap, also over midnight.
    A correction downwards frees the run and the account, never a day or a month.
    """

    at: datetime
    run: Used = Used()
    day: Used = Used()
    month: Used = Used()
    account: Used = Used()

    def of(self, cap: Cap) -> Used:
        used = {Cap.RUN: self.run, Cap.DAY: self.day, Cap.MONTH: self.month, Cap.ACCOUNT: self.account}
        return used[cap]


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What one cap still allows."""

    cap: Cap
    limit: Money
    spent: Money
    reserved: Money
    setting: str
    """What `elias budget set` calls it: the cap's name, or the run whose own budget it is."""
    until: datetime | None = None
    """When the day or month ends and the cap begins anew."""

    @property
    def left(self) -> Money:
        return max(FREE, self.limit - self.spent - self.reserved)

    def waits_for_others(self, needed: Money) -> bool:
        """Whether it would fit once what is reserved now has been given back."""
        return self.spent + needed <= self.limit


def rooms(caps: Caps, usage: Usage, run: str) -> Sequence[Room]:
    """One for each cap that is set, as `run` meets it."""
    ends = {Cap.DAY: day_after(usage.at), Cap.MONTH: month_after(usage.at)}
    is_own = caps.own is not None and (caps.run is None or caps.own < caps.run)
    return [
        Room(
            cap=cap,
            limit=limit,
            spent=usage.of(cap).spent,
            reserved=usage.of(cap).reserved,
            setting=run if cap is Cap.RUN and is_own else str(cap),
            until=ends.get(cap),
        )
        for cap in Cap
        if (limit := caps.of(cap)) is not None
    ]


def tightest(found: Iterable[Room]) -> Room | None:
    return min(found, key=lambda room: room.left, default=None)


def over_budget(room: Room, needed: Money) -> OverBudget:
    """The refusal of `needed`: names the cap, what is spent, reserved and needed, and what to type."""
    return OverBudget(
        f"the cap of {named(room.cap)} is {dollars(room.limit)}: {dollars(room.spent)} spent, "
        f"{dollars(room.reserved)} reserved, {dollars(needed)} needed",
        kept="nothing was started, and nothing will be billed",
        fix=f"elias budget set {room.setting} {enough(room, needed)}",
        cap=str(room.cap),
    )


def enough(room: Room, needed: Money) -> str:
    """The cap that allows it, as it is typed."""
    return whole_dollars(max(room.limit, room.spent + room.reserved + needed))


def whole_dollars(money: Money) -> str:
    """Rounded up, as it is typed."""
    return f"{-(-money.micro_usd // 1_000_000)}usd"


def named(cap: Cap) -> str:
    return {Cap.RUN: "the run", Cap.DAY: "the day", Cap.MONTH: "the month", Cap.ACCOUNT: "the account"}[cap]


def dollars(money: Money) -> str:
    """With cents, and with more digits where cents would hide something."""
    exact = f"{Decimal(money.micro_usd) / 1_000_000:.6f}"
    short = exact.rstrip("0")
    sign, digits = ("-", short[1:]) if short.startswith("-") else ("", short)
    return f"{sign}${digits if len(digits.partition('.')[2]) >= 2 else f'{Decimal(digits):.2f}'}"


def typed(money: Money) -> str:
    """As `dollars` says it, the way a person types it: `0.50usd`."""
    return f"{dollars(money).removeprefix('$')}usd"


def day_of(at: datetime) -> datetime:
    """Its first instant, in UTC."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def day_after(at: datetime) -> datetime:
    return day_of(at) + timedelta(days=1)


def month_of(at: datetime) -> datetime:
    return day_of(at).replace(day=1)


def month_after(at: datetime) -> datetime:
    return month_of(month_of(at) + timedelta(days=32))


def total(parts: Iterable[Part]) -> Money:
    return sum((part.amount for part in parts), FREE)


def held(entries: Iterable[Entry]) -> Money:
    """What those lines still keep back."""
    sums = dict.fromkeys(EntryKind, FREE)
    for entry in entries:
        sums[entry.kind] += entry.amount
    taken = sums[EntryKind.RESERVE] + sums[EntryKind.OVERRUN]
    return taken - sums[EntryKind.SETTLE] - sums[EntryKind.RELEASE]


def spent(entries: Iterable[Entry]) -> Money:
    """What those lines say was billed."""
    return sum((e.amount for e in entries if e.kind in (EntryKind.SETTLE, EntryKind.ADJUST)), FREE)


def is_open(entries: Sequence[Entry]) -> bool:
    """Whether the lines of one key, in order, end in a reservation that nobody has closed."""
    moves = [entry for entry in entries if entry.kind is not EntryKind.ADJUST]
    return bool(moves) and moves[-1].kind is EntryKind.RESERVE


def reserving(entries: Sequence[Entry], parts: Sequence[Part]) -> Sequence[Part]:
    """What is to be added to the lines of a key so that at least `parts` is held; nothing where that is so already.

    A reservation never shrinks before it is settled: whoever launched on it may use all of it.
    """
    if not is_open(entries):
        return [part for part in parts if part.amount > FREE]
    kept: dict[str, Money] = {}
    for entry in _since_closed(entries):
        if entry.kind is EntryKind.RESERVE:
            kept[entry.part] = kept.get(entry.part, FREE) + entry.amount
    lacking = total(parts) - held(entries)
    if lacking <= FREE:
        return []
    wanted = [Part(name=p.name, amount=p.amount - kept.get(p.name, FREE)) for p in parts]
    return _first(lacking, [part for part in wanted if part.amount > FREE])


def closing(entries: Sequence[Entry], bill: Sequence[Part]) -> Sequence[tuple[EntryKind, Part]]:
    """The lines that settle a key with `bill`; none where it is closed already, since a key is settled once."""
    if not is_open(entries) and (entries or total(bill) == FREE):
        return []
    kept, cost = held(entries), total(bill)
    lines = [(EntryKind.SETTLE, part) for part in bill if part.amount > FREE]
    if cost > kept:
        lines.append((EntryKind.OVERRUN, Part(name=COMPUTE, amount=cost - kept)))
    return [*lines, (EntryKind.RELEASE, Part(name=COMPUTE, amount=max(FREE, kept - cost)))]


def _since_closed(entries: Sequence[Entry]) -> Sequence[Entry]:
    closed = max((n for n, entry in enumerate(entries) if entry.kind is EntryKind.RELEASE), default=-1)
    return entries[closed + 1 :]


def _first(amount: Money, parts: Sequence[Part]) -> Sequence[Part]:
    """Of `parts`, as much as makes up `amount`."""
    taken: list[Part] = []
    for part in parts:
        share = min(part.amount, amount)
        amount -= share
        if share > FREE:
            taken.append(Part(name=part.name, amount=share))
    return taken
