"""A push of the notebook: once, however it is answered, and with its own parcel."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import kaggle_kills
import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.domain.run import SegmentState
from elias.testing.kaggle_emulator import FaultKind
from elias_trainer.contract import FailureKind


@pytest.mark.slow
def test_a_job_that_is_never_given_its_own_parcel_fails_after_a_bounded_number_of_pushes(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(stale_tries=2, keep_versions=2)
    place.submit()
    place.ended()
    place.key = "faults-0002"
    place.fault(FaultKind.STALE_DATASET, "SaveKernel", times=9)
    place.submit()
    seen = place.until(lambda status: status.state.is_final)
    assert seen[-1].failure is not None and seen[-1].failure.kind is FailureKind.INFRASTRUCTURE
    assert "of this segment" in seen[-1].failure.message and "2 times" in seen[-1].failure.message
    assert any("pushed again" in (status.note or "") for status in seen)
    assert place.pushes() == 3
    assert len(list(place.emulated.disk.root.glob("kernels/ada/*"))) == 2, "the kernel that was in vain is gone"


def test_a_stale_version_that_is_replaced_in_time_costs_one_more_push(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(keep_versions=2)
    place.submit()
    place.ended()
    place.key = "faults-0002"
    place.fault(FaultKind.STALE_DATASET, "SaveKernel")
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert place.pushes() == 3


def test_a_push_whose_answer_is_lost_is_found_again_and_never_repeated(place: Any) -> None:
    place.fault(FaultKind.LOST_ANSWER, "SaveKernel")
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert place.pushes() == 1


@pytest.mark.slow
def test_a_push_that_never_arrived_is_sent_again_once_that_is_clear(
    place: Any, make_backend: Callable[..., KaggleBackend]
) -> None:
    place.backend = make_backend(kaggle_kills.EmulatedClock(place.emulated.disk), settle="1h")
    place.fault(FaultKind.HTTP_500, "SaveKernel")
    place.submit()
    place.until(lambda status: "looking whether it arrived" in (status.note or ""))
    assert place.pushes() == 1
    place.emulated.disk.advance(timedelta(hours=2))
    assert place.ended().state is SegmentState.DONE and place.pushes() == 2


def test_a_push_refused_with_status_200_is_an_error_with_its_fix(place: Any) -> None:
    place.fault(FaultKind.REFUSED, "SaveKernel", message="Your account is not phone verified")
    place.submit()
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.USER
    assert "not phone verified" in ended.failure.message and "kaggle.com/settings" in ended.failure.fix


@pytest.mark.slow
def test_sources_that_stay_unknown_are_an_error_after_a_bounded_number_of_tries(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(http_tries=2)
    place.fault(FaultKind.INVALID_SOURCES, "SaveKernel", times=2)
    place.submit()
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert "does not know what the kernel is to mount: ada/elias-test-node-faults" in ended.failure.message
    assert place.pushes() == 2


def test_cancelling_before_the_push_pushes_nothing(place: Any) -> None:
    place.emulated.disk.configure(gpu_seconds_a_week=1.0)
    place.submit()
    place.until(lambda status: "waits until" in (status.note or ""))
    place.backend.cancel(place.key)
    assert place.ended().state is SegmentState.CANCELLED and place.pushes() == 0
