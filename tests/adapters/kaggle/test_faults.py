"""Each thing that goes wrong with Kaggle: the state that follows, what is kept, what is said."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.domain.run import SegmentState
from elias.errors import InputError, NotFound
from elias.testing.kaggle_emulator import FaultKind
from elias.testing.waiting import wait_until
from elias_trainer.contract import FailureKind, Limits, Recipe
from tests.adapters.kaggle.conftest import CHECKPOINT, ENDLESS


def test_a_dataset_that_is_slow_is_waited_for(place: Any) -> None:
    place.fault(FaultKind.SLOW_PROCESSING, "CreateDataset", seconds=3600.0)
    place.submit()
    place.until(lambda status: "processing the uploaded files" in (status.note or ""))
    place.emulated.disk.advance(timedelta(hours=1))
    assert place.ended().state is SegmentState.DONE


@pytest.mark.slow
def test_a_dataset_that_never_becomes_ready_is_sent_three_times_and_then_given_up(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(processing_limit="0.2s")
    place.emulated.disk.configure(processing_s=1e6)
    place.submit()
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert "3 times" in ended.failure.message and "kaggle.com/datasets/ada/" in ended.failure.fix
    assert place.pushes() == 0


BROKEN = [FaultKind.HTTP_429, FaultKind.HTTP_500, FaultKind.HTML]
CALLS = ["GetDatasetStatus", "GetDataset", "GetKernelSessionStatus", "ListKernelSessionOutput", "SaveKernel"]


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_answers_to_every_call_delay_the_segment_and_no_more(kind: FaultKind, place: Any) -> None:
    for call in CALLS:
        place.fault(kind, call, seconds=0.0)
        place.fault(kind, call, after=1, seconds=0.0)
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert place.checkpoint() == 12
    assert len(list(place.emulated.disk.root.glob("kernels/ada/*/versions/*"))) == 1, "pushed twice"


def test_an_outage_while_it_runs_is_waited_out(make_backend: Callable[..., KaggleBackend], place: Any) -> None:
    place.backend = make_backend(http_tries=1)
    place.submit(base=place.held(11))
    place.running()
    place.fault(FaultKind.HTTP_500, "GetKernelSessionStatus", times=40)
    troubled = place.until(lambda status: "could not be asked" in (status.note or ""))[-1]
    assert troubled.state is SegmentState.RUNNING and "asked again" in (troubled.note or "")
    place.let_go()
    assert place.ended().state is SegmentState.DONE and place.pushes() == 1


@pytest.mark.slow
def test_an_outage_that_outlasts_all_patience_ends_the_segment_and_names_the_cause(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(http_tries=1, patience="0.3s")
    place.submit(**ENDLESS)
    place.running()
    place.fault(FaultKind.HTTP_500, "GetKernelSessionStatus", times=100_000)
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert "could not be asked" in ended.failure.message and "kaggle.com/status" in ended.failure.fix


@pytest.mark.slow
def test_credentials_that_are_no_longer_accepted_do_not_lose_a_session_under_way(place: Any) -> None:
    place.submit(base=place.held(11))
    place.running()
    place.emulated.disk.configure(accepts_keys=False)
    troubled = place.until(lambda status: "credentials" in (status.note or ""))[-1]
    assert troubled.state is SegmentState.RUNNING and "kaggle.com/settings" in (troubled.note or "")
    place.emulated.disk.configure(accepts_keys=True)
    place.let_go()
    assert place.ended().state is SegmentState.DONE


def test_a_call_that_hangs_is_cut_off_and_asked_again(make_backend: Callable[..., KaggleBackend], place: Any) -> None:
    place.backend = make_backend(http_read="2s")
    for call in ("GetDatasetStatus", "GetKernelSessionStatus"):
        place.fault(FaultKind.HANG, call, seconds=3600.0)
    began = time.monotonic()
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert time.monotonic() - began < 3600.0, "a hung socket was waited for"


@pytest.mark.slow
def test_an_upload_that_hangs_is_cut_off_and_sent_again(make_backend: Callable[..., KaggleBackend], place: Any) -> None:
    place.backend = make_backend(http_read="2s")
    place.fault(FaultKind.HANG, "upload", seconds=3600.0)
    place.submit()
    assert place.ended().state is SegmentState.DONE


def test_an_interrupted_upload_goes_on(place: Any) -> None:
    place.fault(FaultKind.TRUNCATED, "upload", times=2)
    place.submit()
    assert place.ended().state is SegmentState.DONE


def test_a_truncated_download_is_fetched_again(place: Any) -> None:
    place.fault(FaultKind.TRUNCATED, "download", times=2)
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert place.checkpoint() == 12


@pytest.mark.slow
def test_a_file_that_kaggle_itself_has_damaged_fails_the_segment_and_the_whole_checkpoint_is_kept(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(http_tries=2)
    place.submit(base=place.held(29), limits=Limits(checkpoint_every_s=0), recipe=Recipe(max_steps=30))
    place.running()
    [version] = place.emulated.disk.root.glob("kernels/ada/*/versions/1")
    outbox = version / "kaggle" / "working"
    place.let_go()
    wait_until(lambda: "ended_at" in (version / "session.json").read_text())  # and nobody has asked after it yet
    newest = max(outbox.glob("checkpoint-*.pack"))
    newest.write_bytes(newest.read_bytes()[:-1])
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert newest.name in ended.failure.message and "came home" in ended.failure.message
    assert 0 < place.checkpoint() < 30


@pytest.mark.parametrize("kind", [FaultKind.SESSION_TIMEOUT, FaultKind.CANCELLED_FROM_WEB])
def test_a_session_that_is_ended_from_outside_is_preempted_and_its_newest_checkpoint_comes_home(
    kind: FaultKind, place: Any
) -> None:
    place.fault(kind, "SaveKernel", seconds=1, once=CHECKPOINT)
    place.submit(**ENDLESS)
    ended = place.ended()
    assert ended.state is SegmentState.FAILED
    assert ended.failure is not None and ended.failure.kind is FailureKind.PREEMPTED
    step = place.checkpoint()
    assert step > 0 and f"step-{step:08d} came home" in ended.failure.message
    assert "elias run resume" in ended.failure.fix
    assert ended.started_at is not None


@pytest.mark.slow
def test_a_session_that_breaks_keeps_its_checkpoint(place: Any) -> None:
    place.fault(FaultKind.SESSION_ERROR, "SaveKernel", seconds=1, once=CHECKPOINT)
    place.submit(**ENDLESS)
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert "ERROR" in ended.failure.message and place.checkpoint() > 0


def test_a_kernel_that_vanished_is_a_failure_worth_another_try(place: Any) -> None:
    place.fault(FaultKind.VANISHED, "SaveKernel", seconds=1.0)
    place.submit(**ENDLESS)
    seen = place.until(lambda status: status.state.is_final)
    assert seen[-1].failure is not None and seen[-1].failure.kind is FailureKind.INFRASTRUCTURE
    assert "not on Kaggle any more" in seen[-1].failure.message
    assert any("does not show the kernel" in (status.note or "") for status in seen), "given up at the first 404"


@pytest.mark.slow
def test_a_kernel_that_kaggle_does_not_show_for_a_moment_is_not_given_up(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(missing_limit="1h")
    place.submit(base=place.held(11))
    place.running()
    place.fault(FaultKind.NOT_FOUND, "GetKernelSessionStatus", times=3)
    place.until(lambda status: "does not show the kernel" in (status.note or ""))
    place.let_go()
    assert place.ended().state is SegmentState.DONE


def test_another_accelerator_is_said_while_the_session_runs(place: Any) -> None:
    place.fault(FaultKind.WRONG_ACCELERATOR, "SaveKernel")
    place.submit(**ENDLESS)
    seen = place.until(lambda status: "planned with" in (status.note or ""))
    assert seen[-1].state is SegmentState.RUNNING
    assert seen[-1].note == "planned with 2 x T4, found 1 x Tesla P100-PCIE-16GB"
    assert seen[-1].accelerator == "Tesla P100-PCIE-16GB"
    place.backend.cancel(place.key)


@pytest.mark.slow
def test_a_lost_answer_to_an_upload_sends_nothing_twice(place: Any) -> None:
    place.fault(FaultKind.LOST_ANSWER, "CreateDataset")
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert len(list(place.emulated.disk.root.glob("datasets/ada/*/versions/*"))) == 1


@pytest.mark.slow
def test_a_live_log_that_is_cut_is_read_on_and_no_event_comes_twice(place: Any) -> None:
    place.fault(FaultKind.TRUNCATED, "logs", times=3)
    place.submit(base=place.held(11))
    place.running()
    live: list[int] = []

    def has_read_eight() -> bool:
        live[:] = [int(event["seq"]) for event in place.backend.events(place.key, -1)]
        return len(live) >= 8

    wait_until(has_read_eight)
    assert live == list(range(len(live)))
    assert place.backend.poll(place.key).state is SegmentState.RUNNING


@pytest.mark.slow
def test_cancelling_by_deletion_ends_the_session_at_once(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(cancel_by="delete")
    place.submit(**ENDLESS)
    place.running()
    place.backend.cancel(place.key)
    assert place.ended().state is SegmentState.CANCELLED
    assert not list(place.emulated.disk.root.glob("kernels/ada/*"))


@pytest.mark.slow
def test_a_node_that_dies_between_two_calls_goes_on_with_a_new_process(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.submit()
    while not place.backend.poll(place.key).state.is_final:
        place.backend = make_backend()  # knows only what is on the disk
        time.sleep(0.02)
    assert place.ended().state is SegmentState.DONE and place.pushes() == 1


@pytest.mark.slow
def test_what_is_left_on_kaggle_goes_when_the_run_is_over(place: Any) -> None:
    place.submit()
    place.ended()
    place.backend.forget(place.key)
    assert not list(place.emulated.disk.root.glob("kernels/ada/*"))
    assert not list(place.emulated.disk.root.glob("datasets/ada/*"))


@pytest.mark.slow
def test_what_could_not_be_removed_is_removed_when_the_next_segment_begins(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(http_tries=1)
    place.submit()
    place.ended()
    place.fault(FaultKind.HTTP_500, "DeleteKernel")
    place.backend.forget(place.key)
    assert list(place.emulated.disk.root.glob("kernels/ada/*"))
    place.key = "another-0001"
    place.submit()
    assert not list(place.emulated.disk.root.glob("kernels/ada/*"))


def test_the_output_of_a_notebook_is_adopted_by_its_address(place: Any) -> None:
    place.submit(**{**ENDLESS, "recipe": Recipe(max_steps=40)})
    place.ended()
    [kernel] = place.emulated.disk.root.glob("kernels/ada/*")
    handle = place.backend.adopt(f"kaggle://ada/{kernel.name}")
    assert place.backend.poll(handle).state.is_final
    place.backend.fetch(handle, place.home / "adopted")
    assert (place.home / "adopted" / "result.json").exists()
    for wrong, error in (("kaggle://ada", InputError), ("kaggle://ada/nothing-there", NotFound)):
        with pytest.raises(error):
            place.backend.adopt(wrong)
