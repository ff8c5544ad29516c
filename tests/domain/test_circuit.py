"""A breaker opens after errors in a row, probes ever less often up to a bound, and closes with one answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from elias.domain.circuit import Circuit, CircuitRule

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULE = CircuitRule()


def failing(circuit: Circuit, times: int, now: datetime = NOON) -> Circuit:
    for _ in range(times):
        circuit = circuit.failed("no route to host", now, RULE)
    return circuit


def test_two_errors_in_a_row_leave_it_closed_and_the_third_opens_it_with_its_reason():
    assert failing(Circuit(), 2).down_since is None
    down = failing(Circuit(), 3)
    assert down.words == (
        "down since 2026-11-24 12:00:00 UTC (no route to host), probed again at 2026-11-24 12:01:00 UTC"
    )
    assert not down.may_probe(NOON + timedelta(seconds=59)) and down.may_probe(NOON + timedelta(seconds=60))


def test_what_fails_on_its_own_while_it_is_open_puts_no_probe_off():
    down = failing(Circuit(), 3)
    assert failing(down, 50).probe_at == down.probe_at


def test_while_somebody_probes_nobody_else_does_until_that_one_is_lost():
    at = NOON + timedelta(minutes=1)
    half_open = failing(Circuit(), 3).claimed(at, RULE)
    assert not half_open.may_probe(at) and half_open.may_probe(at + RULE.probe)


@given(st.integers(1, 200))
def test_probes_come_ever_less_often_and_never_less_often_than_the_bound(probes: int):
    circuit, waits = failing(Circuit(), 3), [RULE.first]
    for _ in range(probes):
        now = circuit.probe_at or NOON
        circuit = circuit.claimed(now, RULE).failed("still", now, RULE)
        waits.append((circuit.probe_at or now) - now)
    assert waits == sorted(waits) and max(waits) <= RULE.longest
    assert circuit.down_since == NOON
