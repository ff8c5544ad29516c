"""Whatever two nodes do with money, in any order, cut off anywhere and tried again: no cap is passed, all adds up."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from elias.adapters.stores import database
from elias.adapters.stores.schema import spend
from elias.config.schema import Config, Store
from elias.domain.spend import COMPUTE, EXTRA, Cap, Caps, Claim, EntryKind, Part, held, is_open
from elias.errors import OverBudget, Refused
from elias.testing.postgres import emptied
from elias.units import FREE, Money
from elias.wiring.stores import open_stores

START = datetime(2026, 11, 29, 22, tzinfo=UTC)  # a day and a month end soon
RUNS = ("run-a", "run-b", "run-c")
KEYS = [Claim(key=f"{run}-{n:04d}", run=run, backend="rented" if n % 2 else "other") for run in RUNS for n in (1, 2, 3)]
AMOUNTS = st.integers(0, 60).map(Money)
LIMITS = st.none() | st.integers(0, 120).map(Money)
CLAIMS = st.sampled_from(KEYS)
NODES = st.sampled_from((0, 1))


class Ledger(RuleBasedStateMachine):
    """The oracle keeps its own plain account of every call that was answered."""

    url: str | None = None
    """Of a PostgreSQL server; None is an SQLite file."""

    @initialize(run=LIMITS, day=LIMITS, month=LIMITS, account=LIMITS)
    def open(self, run: Any, day: Any, month: Any, account: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        url = emptied(self.url) if self.url else None
        self.config = Config(home=Path(self.folder.name), store=Store(url=url))
        self.nodes = [open_stores(self.config), open_stores(self.config)]
        self.caps = Caps(run=run, day=day, month=month, account=account)
        self.now = START
        self.holds: dict[str, Money] = {}
        self.settled: set[str] = set()
        self.bills: list[tuple[Claim, datetime, Money]] = []
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def teardown(self) -> None:
        if hasattr(self, "nodes"):
            for node in self.nodes:
                node.close()
            self.folder.cleanup()

    # What nodes do

    @rule(node=NODES, claim=CLAIMS, compute=AMOUNTS, extra=AMOUNTS)
    def reserve(self, node: int, claim: Claim, compute: Money, extra: Money) -> None:
        self.call("reserve", node, claim, (Part(name=COMPUTE, amount=compute), Part(name=EXTRA, amount=extra)))

    @rule(node=NODES, claim=CLAIMS, amount=AMOUNTS)
    def settle(self, node: int, claim: Claim, amount: Money) -> None:
        self.call("settle", node, claim, (Part(name=COMPUTE, amount=amount),))

    @rule(node=NODES, claim=CLAIMS)
    def release(self, node: int, claim: Claim) -> None:
        self.call("settle", node, claim, ())

    @rule(node=NODES, claim=CLAIMS, billed=AMOUNTS)
    def correct(self, node: int, claim: Claim, billed: Money) -> None:
        self.call("correct", node, claim, billed)

    @rule(hours=st.integers(1, 40))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), node=NODES)
    def somebody_calls_again(self, data: st.DataObject, node: int) -> None:
        """A retry whose first answer was lost, by the same node or by another one that has taken the run over."""
        name, arguments = data.draw(st.sampled_from(self.calls))
        self.call(name, node, *arguments)

    @rule(node=NODES, claim=CLAIMS, amount=AMOUNTS)
    def a_node_dies_in_the_middle_of_a_write(self, node: int, claim: Claim, amount: Money) -> None:
        database = self.nodes[node]._database
        with pytest.raises(KeyboardInterrupt), database.write_through() as connection:
            last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(spend.c.number), 0))).scalar_one()
            connection.execute(
                spend.insert().values(
                    number=last + 1,
                    kind="reserve",
                    key=claim.key,
                    part=COMPUTE,
                    amount=amount.micro_usd,
                    at=0,
                    run=claim.run,
                    backend=claim.backend,
                    note="",
                )
            )
            raise KeyboardInterrupt
        self.nodes[node].close()
        self.nodes[node] = open_stores(self.config)

    # What must hold

    def call(self, name: str, node: int, claim: Claim, what: Any) -> None:
        self.calls.append((name, (claim, what)))
        store, at = self.nodes[node].spend, self.now - timedelta(minutes=7) * node  # one clock lags behind
        getattr(self, f"check_{name}")(store, claim, what, at)

    def check_reserve(self, store: Any, claim: Claim, parts: tuple[Part, ...], at: datetime) -> None:
        before = self.holds.get(claim.key, FREE)
        wanted = sum((part.amount for part in parts), FREE)
        added = max(FREE, wanted - before)
        fits = all(self.sum_of(cap, claim.run, at) + added <= limit for cap in Cap if (limit := self.caps.of(cap)))
        try:
            now_held = store.reserve(claim, parts, self.caps, at)
        except OverBudget as error:
            assert added > FREE and not fits, f"refused in vain: {error.what}"
            assert error.cap in error.what and "spent" in error.what and "elias budget set" in error.fix
        except Refused:
            assert claim.key in self.settled and added > FREE
        else:
            assert fits or added == FREE, "a cap was passed"
            assert now_held == before + added
            self.holds[claim.key] = now_held

    def check_settle(self, store: Any, claim: Claim, bill: tuple[Part, ...], at: datetime) -> None:
        cost = sum((part.amount for part in bill), FREE)
        known = bool(store.entries(key=claim.key))
        was_open = is_open(store.entries(key=claim.key))
        store.settle(claim, bill, at)
        if was_open or not known:
            self.holds.pop(claim.key, None)
            if cost > FREE:
                self.settled.add(claim.key)
                self.bills.append((claim, at, cost))

    def check_correct(self, store: Any, claim: Claim, billed: Money, at: datetime) -> None:
        try:
            difference = store.correct(claim, billed, at, "by the bill")
        except Refused:
            assert self.holds.get(claim.key, FREE) > FREE
            return
        assert difference == billed - self.spent(claim.key)
        self.bills.append((claim, at, difference))

    @invariant()
    def the_journal_balances_and_says_what_was_answered(self) -> None:
        if not hasattr(self, "nodes"):
            return
        for node in self.nodes:
            by_key: dict[str, list[Any]] = defaultdict(list)
            for line in node.spend.entries():
                by_key[line.key].append(line)
            for key, lines in by_key.items():
                sums = {kind: sum((e.amount for e in lines if e.kind is kind), FREE) for kind in EntryKind}
                taken = sums[EntryKind.RESERVE] + sums[EntryKind.OVERRUN]
                assert taken == sums[EntryKind.SETTLE] + sums[EntryKind.RELEASE] + held(lines)
                assert held(lines) >= FREE
                assert is_open(lines) or held(lines) == FREE
                assert held(lines) == self.holds.get(key, FREE)
                assert sums[EntryKind.SETTLE] + sums[EntryKind.ADJUST] == self.spent(key)
                closings = [e for e in lines if e.kind is EntryKind.SETTLE]
                assert len(closings) <= 1, "settled twice"
            accounts = node.spend.accounts()
            assert {a.claim.key: (a.spent, a.reserved) for a in accounts} == {
                key: (self.spent(key), self.holds.get(key, FREE)) for key in by_key
            }

    def spent(self, key: str) -> Money:
        return sum((amount for claim, _, amount in self.bills if claim.key == key), FREE)

    def sum_of(self, cap: Cap, run: str, at: datetime) -> Money:
        """Settled and reserved, as the caps are explained to people; written unlike the code that is tested."""
        ours = {claim.key for claim in KEYS if cap is not Cap.RUN or claim.run == run}
        kept = sum((amount for key, amount in self.holds.items() if key in ours), FREE)
        if cap in (Cap.RUN, Cap.ACCOUNT):
            return kept + sum((amount for claim, _, amount in self.bills if claim.key in ours), FREE)
        form = "%Y-%m-%d" if cap is Cap.DAY else "%Y-%m"
        by_period: dict[str, Money] = defaultdict(Money)
        for _, when, amount in self.bills:
            by_period[when.strftime(form)] += max(FREE, amount)
        later = [amount for period, amount in by_period.items() if period >= at.strftime(form)]
        return kept + max(later, default=FREE)


def test_any_sequence_of_two_nodes_keeps_every_cap_and_balances_on_sqlite() -> None:
    run_state_machine_as_test(Ledger, settings=in_short(25, 30))


def test_any_sequence_of_two_nodes_keeps_every_cap_and_balances_on_postgresql(postgres: str) -> None:
    class OnPostgres(Ledger):
        url = postgres

    run_state_machine_as_test(OnPostgres, settings=in_short(6, 25))


def in_short(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_nodes_that_reserve_at_the_same_moment_pass_no_cap_together(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 600.0)
    url = None if kind == "sqlite" else emptied(request.getfixturevalue("postgres"))
    config = Config(home=tmp_path, store=Store(url=url))
    nodes = [open_stores(config) for _ in range(2)]
    together, caps = Barrier(6), Caps(day=Money(100))

    def reserve(who: int) -> Money:
        store, kept = nodes[who % 2].spend, FREE
        together.wait()
        for n in range(8):
            claim = Claim(key=f"run-{who}-{n:04d}", run=f"run-{who}", backend="rented")
            with suppress(OverBudget):
                kept += store.reserve(claim, [Part(name=COMPUTE, amount=Money(7))], caps, START)
        return kept

    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(reserve, range(6)))
    usage = nodes[0].spend.usage(START)
    numbers = [entry.number for entry in nodes[1].spend.entries()]
    for node in nodes:
        node.close()
    assert sum(kept, FREE) == usage.day.reserved == Money(98)
    assert numbers == list(range(1, 15))
