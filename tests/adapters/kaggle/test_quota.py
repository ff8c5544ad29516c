"""The account's quota and its sessions, as others use them too."""

from collections.abc import Callable
from typing import Any

import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.domain.run import SegmentState
from tests.adapters.kaggle.conftest import ENDLESS


def test_an_exhausted_quota_is_waited_for_until_its_refresh(place: Any) -> None:
    place.submit()
    place.emulated.disk.configure(gpu_seconds_a_week=1.0)
    refresh = place.emulated.disk.next_refresh()
    waits = place.until(lambda status: "waits until" in (status.note or ""))[-1]
    assert waits.state is SegmentState.PENDING
    refreshes = {refresh, place.emulated.disk.next_refresh()}  # a week may end just now
    assert any(f"waits until {moment:%Y-%m-%dT%H:%M:%S}Z" in (waits.note or "") for moment in refreshes)
    assert place.pushes() == 0
    place.emulated.disk.configure(gpu_seconds_a_week=3600.0)
    assert place.ended().state is SegmentState.DONE


@pytest.mark.slow
def test_other_use_of_the_account_makes_the_session_shorter(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(session_limit="9h", margin="10m")
    place.submit()
    place.emulated.disk.configure(gpu_seconds_a_week=3600.0)
    assert place.ended().state is SegmentState.DONE
    [push] = place.emulated.disk.requests("SaveKernel")
    assert push["body"]["sessionTimeoutSeconds"] == 3600, "50 minutes and the margin"


def test_two_sessions_at_once_is_the_most_for_all_runs_of_the_node(place: Any) -> None:
    for number in (1, 2):
        place.key = f"busy{number}-0001"
        place.submit(**ENDLESS)
        place.running()
    place.key = "third-0001"
    place.submit()
    waits = place.until(lambda status: "it starts when one ends" in (status.note or ""))[-1]
    assert waits.state is SegmentState.PENDING and place.pushes() == 2
    assert place.backend.quota().running == 2


@pytest.mark.slow
def test_sessions_of_other_programs_on_the_account_are_waited_for(place: Any) -> None:
    place.emulated.disk.configure(gpu_sessions_at_once=0)
    place.submit()
    waits = place.until(lambda status: "session count" in (status.note or ""))[-1]
    assert waits.state is SegmentState.PENDING
    place.emulated.disk.configure(gpu_sessions_at_once=2)
    assert place.ended().state is SegmentState.DONE
