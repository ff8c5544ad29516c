"""What every journal of money must do. Subclass it, and override the fixture `store` with an empty one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from elias.domain.spend import Caps, Claim, EntryKind, Part, Used
from elias.errors import OverBudget, Refused
from elias.ports.stores import SpendStore
from elias.testing.nouns import NOON
from elias.units import Money


class SpendStoreSuite:
    """Of one store; that no sequence of several nodes passes a cap is a property with a test of its own."""

    CLAIM = Claim(key="run-1-0001", run="run-1", backend="rented")
    OTHER = Claim(key="run-2-0001", run="run-2", backend="rented")

    @pytest.fixture
    def store(self) -> SpendStore:
        pytest.fail("override the fixture `store`")

    def test_what_is_reserved_is_settled_once_and_the_rest_is_given_back(self, store: SpendStore) -> None:
        parts = [Part(name="compute", amount=Money(70)), Part(name="extra", amount=Money(30))]
        assert store.reserve(self.CLAIM, parts, Caps(), NOON) == Money(100)
        for _ in range(2):
            store.settle(self.CLAIM, [Part(name="compute", amount=Money(60))], NOON, "done")
        lines = [(e.number, e.kind, e.part, e.amount.micro_usd) for e in store.entries()]
        assert lines == [
            (1, EntryKind.RESERVE, "compute", 70),
            (2, EntryKind.RESERVE, "extra", 30),
            (3, EntryKind.SETTLE, "compute", 60),
            (4, EntryKind.RELEASE, "compute", 40),
        ]
        [account] = store.accounts()
        assert (account.claim, account.spent, account.reserved) == (self.CLAIM, Money(60), Money(0))

    def test_reserving_again_adds_only_what_is_lacking(self, store: SpendStore) -> None:
        assert store.reserve(self.CLAIM, self._of(50), Caps(), NOON) == Money(50)
        assert store.reserve(self.CLAIM, self._of(50), Caps(), NOON) == Money(50)
        assert store.reserve(self.CLAIM, self._of(20), Caps(), NOON) == Money(50)
        assert store.reserve(self.CLAIM, self._of(80), Caps(run=Money(80)), NOON) == Money(80)
        assert [entry.amount for entry in store.entries(key=self.CLAIM.key)] == [Money(50), Money(30)]

    def test_what_was_given_back_whole_may_be_reserved_again_and_what_was_settled_may_not(
        self, store: SpendStore
    ) -> None:
        store.reserve(self.CLAIM, self._of(50), Caps(), NOON)
        store.settle(self.CLAIM, [], NOON)
        assert store.reserve(self.CLAIM, self._of(40), Caps(run=Money(40)), NOON) == Money(40)
        store.settle(self.CLAIM, self._of(10), NOON)
        with pytest.raises(Refused, match="settled"):
            store.reserve(self.CLAIM, self._of(1), Caps(), NOON)

    @pytest.mark.parametrize("cap", ["run", "own", "day", "month", "account"])
    def test_each_cap_refuses_naming_itself_what_is_spent_reserved_and_needed_and_the_fix(
        self, store: SpendStore, cap: str
    ) -> None:
        store.reserve(self.CLAIM, self._of(4_000_000), Caps(), NOON)
        store.settle(self.CLAIM, self._of(1_500_000), NOON)
        again = Claim(key="run-1-0002", run="run-1", backend="rented")
        store.reserve(again, self._of(500_000), Caps(), NOON)
        third = Claim(key="run-1-0003", run="run-1", backend="rented")
        with pytest.raises(OverBudget) as refused:
            store.reserve(third, self._of(3_000_001), Caps(**{cap: Money.usd(5)}), NOON)
        assert "$5.00: $1.50 spent, $0.50 reserved, $3.000001 needed" in refused.value.what
        assert refused.value.fix == f"elias budget set {'run-1' if cap == 'own' else cap} 6usd"
        assert refused.value.exit_code == 4
        assert store.entries(key=third.key) == []
        assert store.reserve(third, self._of(3_000_000), Caps(**{cap: Money.usd(5)}), NOON) == Money.usd(3)

    def test_a_bill_above_what_was_reserved_and_one_without_a_reservation_are_named(self, store: SpendStore) -> None:
        store.reserve(self.CLAIM, self._of(10), Caps(), NOON)
        store.settle(self.CLAIM, self._of(15), NOON)
        store.settle(self.OTHER, self._of(7), NOON)
        overruns = [(e.key, e.amount.micro_usd) for e in store.entries() if e.kind is EntryKind.OVERRUN]
        assert overruns == [(self.CLAIM.key, 5), (self.OTHER.key, 7)]
        assert store.usage(NOON).account == Used(spent=Money(22), reserved=Money(0))

    def test_an_open_reservation_counts_on_every_day_and_a_bill_on_the_day_it_is_settled(
        self, store: SpendStore
    ) -> None:
        store.reserve(self.CLAIM, self._of(10), Caps(), NOON)
        tomorrow, after = NOON + timedelta(days=1), NOON + timedelta(days=2)
        for day in (NOON, tomorrow):
            assert store.usage(day).day == Used(spent=Money(0), reserved=Money(10))
        store.settle(self.CLAIM, self._of(6), tomorrow)
        assert store.usage(tomorrow).day == Used(spent=Money(6), reserved=Money(0))
        assert store.usage(after).day == Used(spent=Money(0), reserved=Money(0))
        assert store.usage(after).month == Used(spent=Money(6), reserved=Money(0))
        assert store.usage(NOON + timedelta(days=30)).month == Used(spent=Money(0), reserved=Money(0))

    def test_a_node_whose_clock_lags_behind_midnight_counts_what_was_spent_after_it(self, store: SpendStore) -> None:
        after_midnight = NOON + timedelta(hours=12, minutes=1)
        store.settle(self.CLAIM, self._of(6), after_midnight)
        with pytest.raises(OverBudget):
            store.reserve(self.OTHER, self._of(5), Caps(day=Money(10)), after_midnight - timedelta(minutes=5))

    def test_a_correction_is_one_line_and_downwards_frees_no_day(self, store: SpendStore) -> None:
        store.settle(self.CLAIM, self._of(10), NOON)
        for _ in range(2):
            store.correct(self.CLAIM, Money(4), NOON, "the bill")
        adjusted = [e for e in store.entries() if e.kind is EntryKind.ADJUST]
        assert [(e.amount, e.note) for e in adjusted] == [(Money(-6), "the bill")]
        usage = store.usage(NOON, "run-1")
        assert (usage.run.spent, usage.account.spent) == (Money(4), Money(4))
        assert (usage.day.spent, usage.month.spent) == (Money(10), Money(10))

    def test_a_bill_by_run_is_compared_with_all_of_its_keys_there(self, store: SpendStore) -> None:
        for number in (1, 2):
            store.settle(Claim(key=f"run-1-000{number}", run="run-1", backend="rented"), self._of(5), NOON)
        store.settle(Claim(key="run-1-0003", run="run-1", backend="other"), self._of(5), NOON)
        whole = Claim(key="run-1", run="run-1", backend="rented")
        assert store.correct(whole, Money(13), NOON, "the bill") == Money(3)
        assert store.correct(whole, Money(13), NOON, "the bill") == Money(0)

    def test_what_is_still_open_is_not_corrected(self, store: SpendStore) -> None:
        store.reserve(self.CLAIM, self._of(10), Caps(), NOON)
        with pytest.raises(Refused, match="open"):
            store.correct(self.CLAIM, Money(4), NOON, "the bill")

    def test_less_than_nothing_is_neither_reserved_nor_billed(self, store: SpendStore) -> None:
        with pytest.raises(ValueError, match="less than nothing"):
            store.reserve(self.CLAIM, self._of(-1), Caps(), NOON)
        with pytest.raises(ValueError, match="below zero"):
            store.settle(self.CLAIM, self._of(-1), NOON)
        assert store.entries() == []

    def test_what_a_key_holds_itself_can_be_left_out(self, store: SpendStore) -> None:
        store.reserve(self.CLAIM, self._of(10), Caps(), NOON)
        store.reserve(self.OTHER, self._of(5), Caps(), NOON)
        usage = store.usage(NOON, "run-1", without=self.CLAIM.key)
        assert (usage.run.reserved, usage.day.reserved, usage.account.reserved) == (Money(0), Money(5), Money(5))

    def _of(self, amount: int) -> list[Part]:
        return [Part(name="compute", amount=Money(amount))]
