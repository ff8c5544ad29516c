"""What may be stopped: only a job, only one that nobody can be waiting for, only where no other home can own it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from elias.domain.holding import Holding, HoldingKind, Orphan, Owner, may_be_stopped, orphans_among

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
GRACE = timedelta(minutes=30)

holdings = st.builds(
    Holding,
    kind=st.sampled_from(HoldingKind),
    name=st.sampled_from(["a", "b"]),
    run=st.none() | st.just("run-1"),
    segment=st.none() | st.just("run-1-0001"),
    since=st.none() | st.integers(0, 3600).map(lambda s: NOW - timedelta(seconds=s)),
    is_ending=st.booleans(),
    is_set_up=st.booleans(),
    is_surely_ours=st.booleans(),
)


@given(holding=holdings)
def test_what_a_run_under_way_owns_is_no_orphan(holding: Holding):
    found = orphans_among([holding], lambda run, segment: Owner.UNDER_WAY)
    assert not found or holding.run is None


@given(holding=holdings, owner=st.sampled_from(Owner))
def test_set_up_things_are_never_orphans_and_files_of_a_known_run_neither(holding: Holding, owner: Owner):
    found = orphans_among([holding], lambda run, segment: owner)
    if holding.is_set_up:
        assert not found
    if holding.kind is not HoldingKind.JOB and holding.run and owner is not Owner.UNKNOWN:
        assert not found


@given(holding=holdings)
def test_nothing_but_an_old_job_that_is_surely_ours_is_ever_stopped(holding: Holding):
    may = may_be_stopped(Orphan(holding=holding, why="x"), NOW, GRACE)
    if may:
        assert holding.kind is HoldingKind.JOB and holding.is_surely_ours and not holding.is_ending
        assert holding.since is not None and NOW - holding.since >= GRACE


def test_an_old_job_that_is_surely_ours_may_be_stopped():
    job = Holding(kind=HoldingKind.JOB, name="a", since=NOW - GRACE, is_surely_ours=True)
    assert may_be_stopped(Orphan(holding=job, why="x"), NOW, GRACE)
