"""The journal of money in a database. One writer at a time, over all processes and nodes that share it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from elias.adapters.stores.database import Database
from elias.adapters.stores.schema import spend
from elias.adapters.stores.upsert import microseconds
from elias.domain.spend import (
    Account,
    Caps,
    Claim,
    Entry,
    EntryKind,
    Part,
    Usage,
    Used,
    closing,
    day_of,
    held,
    is_open,
    month_of,
    over_budget,
    reserving,
    rooms,
    spent,
    tightest,
    total,
)
from elias.errors import Refused
from elias.units import FREE, Money

_LOCK = 0x656C6962
"""Any number that no other program takes, and not that of making the tables."""
_DAY = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIGNS = {EntryKind.RESERVE: 1, EntryKind.OVERRUN: 1, EntryKind.SETTLE: -1, EntryKind.RELEASE: -1}

_HELD = sa.func.coalesce(
    sa.func.sum(sa.case(*[(spend.c.kind == kind, spend.c.amount * sign) for kind, sign in _SIGNS.items()], else_=0)), 0
)
_IS_BILL = spend.c.kind.in_((EntryKind.SETTLE, EntryKind.ADJUST))
_SPENT = sa.func.coalesce(sa.func.sum(sa.case((_IS_BILL, spend.c.amount), else_=0)), 0)
_SPENT_UP = sa.func.sum(sa.case((_IS_BILL & (spend.c.amount > 0), spend.c.amount), else_=0))


class SqlSpendStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, claim: Claim, parts: Sequence[Part], caps: Caps, at: datetime) -> Money:
        if any(part.amount < FREE for part in parts):
            raise ValueError(f"less than nothing cannot be reserved: {parts}")
        with self._locked() as connection:
            lines = self._lines(connection, spend.c.key == claim.key)
            added = reserving(lines, parts)
            if not added:
                return held(lines)
            if any(line.kind is EntryKind.SETTLE for line in lines):
                raise Refused(
                    f"{claim.key} is settled: nothing more is reserved for it",
                    fix=f"elias run resume {claim.run} begins a segment of its own",
                )
            needed = total(added)
            usage = self._usage(connection, at, claim.run)
            if short := tightest(room for room in rooms(caps, usage, claim.run) if room.left < needed):
                raise over_budget(short, needed)
            self._append(connection, claim, [(EntryKind.RESERVE, part) for part in added], at)
            return held(lines) + needed

    def settle(self, claim: Claim, bill: Sequence[Part], at: datetime, note: str = "") -> None:
        if any(part.amount < FREE for part in bill):
            raise ValueError(f"a bill is never below zero: {bill}")
        with self._locked() as connection:
            lines = self._lines(connection, spend.c.key == claim.key)
            self._append(connection, claim, closing(lines, bill), at, note)

    def correct(self, claim: Claim, billed: Money, at: datetime, note: str) -> Money:
        where = spend.c.key == claim.key
        if claim.key == claim.run:
            where = (spend.c.run == claim.run) & (spend.c.backend == claim.backend)
        with self._locked() as connection:
            lines = self._lines(connection, where)
            if is_open([line for line in lines if line.key == claim.key]):
                raise Refused(f"{claim.key} is still open", fix="wait for its end: elias budget show")
            difference = billed - spent(lines)
            if difference != FREE:
                adjust = Part(name="correction", amount=difference)
                self._append(connection, claim, [(EntryKind.ADJUST, adjust)], at, note)
        return difference

    def usage(self, at: datetime, run: str | None = None, without: str | None = None) -> Usage:
        with self._database.read() as connection:
            return self._usage(connection, at, run, without)

    def entries(self, *, key: str | None = None, run: str | None = None) -> Sequence[Entry]:
        wanted = [column == value for column, value in ((spend.c.key, key), (spend.c.run, run)) if value is not None]
        with self._database.read() as connection:
            return self._lines(connection, *wanted)

    def accounts(self) -> Sequence[Account]:
        columns = (spend.c.key, spend.c.run, spend.c.backend)
        first, last = sa.func.min(spend.c.at), sa.func.max(spend.c.at)
        query = sa.select(*columns, _SPENT, _HELD, first, last).group_by(*columns)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(sa.func.min(spend.c.number))).all()
        return [
            Account(
                claim=Claim(key=key, run=run, backend=backend),
                spent=Money(int(billed)),
                reserved=Money(int(kept)),
                first_at=_instant(first_at),
                last_at=_instant(last_at),
            )
            for key, run, backend, billed, kept, first_at, last_at in rows
        ]

    @contextmanager
    def _locked(self) -> Iterator[sa.Connection]:
        """Nobody else reads a sum that this transaction is about to change; SQLite's is exclusive as it is."""
        with self._database.write_through() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection

    def _lines(self, connection: sa.Connection, *wanted: sa.ColumnElement[bool]) -> list[Entry]:
        rows = connection.execute(sa.select(spend).where(*wanted).order_by(spend.c.number))
        return [
            Entry(
                number=row.number,
                kind=EntryKind(row.kind),
                key=row.key,
                part=row.part,
                amount=Money(row.amount),
                at=_instant(row.at),
                run=row.run,
                backend=row.backend,
                note=row.note,
            )
            for row in rows
        ]

    def _append(
        self,
        connection: sa.Connection,
        claim: Claim,
        lines: Sequence[tuple[EntryKind, Part]],
        at: datetime,
        note: str = "",
    ) -> None:
        last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(spend.c.number), 0))).scalar_one()
        rows = [
            {
                "number": last + n,
                "kind": str(kind),
                "key": claim.key,
                "part": part.name,
                "amount": part.amount.micro_usd,
                "at": microseconds(at),
                "run": claim.run,
                "backend": claim.backend,
                "note": note,
            }
            for n, (kind, part) in enumerate(lines, start=1)
        ]
        if rows:
            connection.execute(spend.insert(), rows)

    def _usage(self, connection: sa.Connection, at: datetime, run: str | None, without: str | None = None) -> Usage:
        account, ours = self._used(connection), self._used(connection, spend.c.run == run)
        own = self._used(connection, spend.c.key == without).reserved if without else FREE
        reserved = account.reserved - own
        day, month = self._spent_since(connection, at)
        return Usage(
            at=at,
            run=Used(spent=ours.spent, reserved=ours.reserved - own),
            day=Used(spent=day, reserved=reserved),
            month=Used(spent=month, reserved=reserved),
            account=Used(spent=account.spent, reserved=reserved),
        )

    def _used(self, connection: sa.Connection, *wanted: sa.ColumnElement[bool]) -> Used:
        billed, kept = connection.execute(sa.select(_SPENT, _HELD).where(*wanted)).one()
        return Used(spent=Money(int(billed)), reserved=Money(int(kept)))

    def _spent_since(self, connection: sa.Connection, at: datetime) -> tuple[Money, Money]:
        """Of the day and of the month; of a later one where more was spent in it, as a node's clock may lag behind."""
        number = spend.c.at // _DAY
        since = microseconds(month_of(at))
        rows = connection.execute(sa.select(number, _SPENT_UP).where(spend.c.at >= since).group_by(number)).all()
        days = {_EPOCH + timedelta(days=int(day)): Money(int(amount)) for day, amount in rows}
        months: defaultdict[datetime, Money] = defaultdict(Money)
        for day, amount in days.items():
            months[month_of(day)] += amount
        later = [amount for day, amount in days.items() if day >= day_of(at)]
        return max(later, default=FREE), max(months.values(), default=FREE)


def _instant(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)
