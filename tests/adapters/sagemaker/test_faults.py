"""Each thing that goes wrong with SageMaker: the state that follows, what is kept, what it costs, what is said."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.backends.sagemaker.jobs import job_name
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import BudgetExhausted, NotFound
from elias.testing.bundles import CORPUS, Wanted, make_bundle, need_of
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.sagemaker_emulator import FaultKind
from elias.units import FREE, Money
from elias_trainer.contract import FailureKind, Limits, Recipe, Result, digest_file, from_json

HOURLY = Money.usd("1.408")
SHORT = {"recipe": Recipe(max_steps=60), "base": fake_base(step_s=0.02), "limits": Limits(checkpoint_every_s=0.1)}
LONG = {**SHORT, "recipe": Recipe(max_steps=100_000)}
SPOT = "ml.g5.xlarge spot"


def billed(job: dict[str, Any]) -> Money:
    return HOURLY.for_hours(timedelta(seconds=job["BillableTimeInSeconds"]))


# Spot


@pytest.mark.parametrize("label", [Label.PUBLIC, Label.PRIVATE])
def test_an_interrupted_spot_job_goes_on_from_its_checkpoint_and_no_step_is_lost_or_repeated(
    place: Any, label: Label
) -> None:
    place.variant = SPOT
    place.submit(**{**SHORT, "recipe": Recipe(max_steps=200), "base": place.held(100, step_s=0.02)}, label=label)
    place.until_checkpoint()
    place.emulated.disk.interrupt(job_name("test-node", place.key))
    place.until(lambda _: "Interrupted" in transitions(place))
    place.let_go()
    seen = place.until(lambda status: status.state.is_final)
    assert seen[-1].state is SegmentState.DONE
    place.backend.fetch(place.key, place.home / "home")
    adapter = digest_file(place.home / "home" / "adapter" / "adapter_model.safetensors")
    assert adapter == expected_adapter(CORPUS, 200)
    result = from_json(Result, (place.home / "home" / "result.json").read_bytes())
    assert 0 < result.started_at_step < 200, "the second machine began at the first one's checkpoint"
    job = place.job()
    assert place.orders() == 1 and [s["Status"] for s in job["SecondaryStatusTransitions"]].count("Interrupted") == 1
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]
    assert seen[-1].cost == billed(job), "the spot discount is in the billed seconds, and taken off once"
    seqs = [int(event["seq"]) for event in place.backend.events(place.key, -1)]
    assert seqs == list(range(len(seqs)))


def test_spot_that_is_taken_away_twice_without_gain_ends_and_is_offered_no_more(place: Any) -> None:
    place.variant = SPOT
    place.emulated.disk.configure(respawn_s=0.0)
    place.submit(**{**LONG, "limits": Limits(checkpoint_every_s=3600)})
    bundle = make_bundle(place.home / "again", "faults-0002", Wanted(**{**LONG, "limits": Limits()}))
    for _ in range(2):
        place.until(lambda status: status.state is SegmentState.RUNNING and "it trains" in (status.note or ""))
        before = len(transitions(place))
        place.emulated.disk.interrupt(job_name("test-node", place.key))
        place.until(lambda _, before=before: len(transitions(place)) > before)
    ended = place.ended()
    assert ended.state is SegmentState.FAILED and ended.failure.kind is FailureKind.PREEMPTED
    assert "2 times" in ended.failure.message
    offers = {offer.variant: offer for offer in place.backend.offers(need_of(bundle))}
    assert "on-demand" in offers[SPOT].refused and offers["ml.g5.xlarge"].refused is None


def transitions(place: Any) -> list[str]:
    return [step["Status"] for step in place.job()["SecondaryStatusTransitions"]]


def test_spot_that_is_not_to_be_had_any_more_ends_preempted_with_its_checkpoint_home(place: Any) -> None:
    place.variant = SPOT
    place.submit(**LONG)
    place.until_checkpoint()
    place.emulated.disk.configure(respawn_s=1e9)
    place.emulated.disk.interrupt(job_name("test-node", place.key))
    place.until(lambda _: "Interrupted" in transitions(place))
    place.emulated.disk.advance(timedelta(days=3))
    ended = place.ended()
    assert ended.state is SegmentState.FAILED and ended.failure.kind is FailureKind.PREEMPTED
    assert place.checkpoint() > 0 and "came home" in ended.failure.message


def test_old_checkpoints_go_from_s3_while_the_job_runs(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elias.adapters.backends.sagemaker.backend.TIDY_EVERY_S", 0.0)
    place.submit(**{**LONG, "limits": Limits(checkpoint_every_s=0.05)})
    place.until_checkpoint(20)
    place.backend.cancel(place.key)
    place.ended()
    steps = [name for name in place.account.names() if "/checkpoint-" in name and name.endswith(".pack")]
    assert place.checkpoint() >= 20 and f"checkpoint-{place.checkpoint():08d}.pack" in steps[-1]
    assert len(steps) < 12, "one was written every two or three steps"


# No place to be had


def test_no_capacity_costs_nothing_and_is_worth_another_place(place: Any) -> None:
    place.fault(FaultKind.INSUFFICIENT_CAPACITY)
    place.submit()
    ended = place.ended()
    assert ended.failure.kind is FailureKind.CAPACITY and ended.cost == FREE
    assert "Unable to provision" in ended.failure.message


def test_a_quota_that_is_used_up_is_said_with_its_name(place: Any) -> None:
    place.fault(FaultKind.RESOURCE_LIMIT)
    place.submit()
    ended = place.ended()
    assert ended.failure.kind is FailureKind.QUOTA and "ml.g5.xlarge for training job usage" in ended.failure.message
    assert not place.account.jobs() and ended.cost == FREE


def test_a_job_that_never_starts_is_stopped_and_its_segment_goes_elsewhere(
    make_backend: Callable[..., SageMakerBackend], place: Any
) -> None:
    place.backend = make_backend(start_limit="0.4s")
    place.fault(FaultKind.NEVER_STARTS)
    place.submit()
    ended = place.ended()
    assert ended.failure.kind is FailureKind.CAPACITY and ended.cost == FREE
    assert place.job()["TrainingJobStatus"] == "Stopped"


# The way to AWS


TROUBLE = [
    (FaultKind.THROTTLED, "CreateTrainingJob"),
    (FaultKind.THROTTLED, "s3.PUT"),
    (FaultKind.SERVER_ERROR, "DescribeTrainingJob"),
    (FaultKind.SERVER_ERROR, "s3.GET"),
    (FaultKind.LOST_ANSWER, "CreateTrainingJob"),
    (FaultKind.LOST_ANSWER, "s3.PUT"),
    (FaultKind.EXPIRED_CREDENTIALS, "s3.HEAD"),
    (FaultKind.EXPIRED_CREDENTIALS, "DescribeLogStreams"),
]


@pytest.mark.parametrize(("kind", "call"), TROUBLE)
def test_trouble_on_the_way_delays_the_segment_and_no_more(place: Any, kind: FaultKind, call: str) -> None:
    place.submit()
    place.fault(kind, call, times=2)
    assert place.ended().state is SegmentState.DONE
    assert len(place.account.jobs()) == 1, "a job was made twice"


def test_a_lost_answer_finds_the_job_again_in_another_process(
    make_backend: Callable[..., SageMakerBackend], place: Any
) -> None:
    place.backend = make_backend(http_tries=1)
    place.submit()
    place.fault(FaultKind.LOST_ANSWER)
    assert "asked again" in (place.backend.poll(place.key).note or "")
    place.backend = make_backend()
    assert place.ended().state is SegmentState.DONE
    assert place.orders() == 1 and len(place.account.jobs()) == 1


def test_a_strangers_job_of_the_same_name_is_neither_adopted_nor_stopped(
    make_backend: Callable[..., SageMakerBackend], place: Any
) -> None:
    place.backend = make_backend()
    place.submit(**LONG)
    place.running()
    [stranger] = place.account.jobs()
    make_other = make_backend(prefix="other")
    make_other._ledger._home = place.home / "another-node"
    bundle = make_bundle(place.home / "other", place.key, Wanted())
    make_other.submit(place.key, bundle, place.offer(bundle))
    status = make_other.poll(place.key)
    assert status.state is SegmentState.FAILED and "did not order" in status.failure.message
    assert (
        place.job()["TrainingJobStatus"] == "InProgress" and place.job()["TrainingJobArn"] == stranger["TrainingJobArn"]
    )
    place.backend.cancel(place.key)
    place.ended()


def test_expired_credentials_are_said_with_what_helps_and_then_it_goes_on(place: Any) -> None:
    place.submit(base=place.held(11))
    place.running()
    place.emulated.disk.configure(expired_keys=["AKIATEST"])
    said = place.until(lambda status: "expired" in (status.note or ""))[-1]
    assert said.state is SegmentState.RUNNING and "aws sso login" in said.note
    place.emulated.disk.configure(expired_keys=[])
    place.let_go()
    assert place.ended().state is SegmentState.DONE


def test_credentials_that_expire_before_the_order_keep_the_segment_waiting(place: Any) -> None:
    place.submit()
    place.emulated.disk.configure(expired_keys=["AKIATEST"])
    said = place.until(lambda status: "expired" in (status.note or ""))[-1]
    assert said.state is SegmentState.PENDING and place.orders() == 0
    place.emulated.disk.configure(expired_keys=[])
    assert place.ended().state is SegmentState.DONE


# Something else than was ordered


def test_a_job_that_is_not_as_ordered_is_stopped_and_the_field_is_named(place: Any) -> None:
    place.variant = SPOT
    place.fault(FaultKind.DROPPED_SPOT)
    place.submit(**LONG)
    ended = place.ended()
    assert ended.failure.kind is FailureKind.VERIFICATION
    assert "EnableManagedSpotTraining" in ended.failure.message or "MaxWaitTimeInSeconds" in ended.failure.message
    assert place.job()["TrainingJobStatus"] == "Stopped"


def test_a_corrupted_model_is_noticed_and_the_last_checkpoint_is_home(place: Any) -> None:
    place.fault(FaultKind.CORRUPTED_MODEL)
    place.submit()
    ended = place.ended()
    assert ended.state is SegmentState.FAILED and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert "model.tar.gz is not whole" in ended.failure.message
    assert place.checkpoint() == 12 and not (place.home / "home" / "adapter").exists()


# Stopped


def test_a_job_stopped_from_the_console_keeps_its_checkpoint_and_does_not_start_again_by_itself(place: Any) -> None:
    place.submit(**LONG)
    place.until_checkpoint()
    place.emulated.disk.stop(job_name("test-node", place.key))
    ended = place.ended()
    assert ended.failure.kind is FailureKind.USER and "console" in ended.failure.message
    assert place.checkpoint() > 0 and ended.cost == billed(place.job())


def test_a_job_at_sagemakers_own_limit_is_a_pause_with_its_checkpoint(place: Any) -> None:
    place.submit(**LONG)
    place.until_checkpoint()
    place.emulated.disk.advance(timedelta(days=2))
    assert place.ended().state is SegmentState.PAUSED
    assert place.checkpoint() > 0 and place.job()["SecondaryStatus"] == "MaxRuntimeExceeded"


def test_cancelled_before_it_was_sent_it_never_goes(place: Any) -> None:
    place.submit(**LONG)
    place.backend.cancel(place.key)
    assert place.ended().state is SegmentState.CANCELLED
    assert place.orders() == 0 and not place.account.names()


@pytest.mark.parametrize(("on_top", "seconds"), [(True, 3600), (False, 3600 - 180)])
def test_a_jobs_limit_and_what_may_follow_it_never_cost_more_than_was_reserved(
    make_backend: Callable[..., SageMakerBackend], place: Any, on_top: bool, seconds: int
) -> None:
    place.backend = make_backend(grace="2m", upload="1m", longest="3h")
    bundle = make_bundle(place.home / "bundle", place.key, Wanted(**{**LONG, "limits": Limits(seconds=3600)}))
    offer = place.offer(bundle)
    place.backend.submit(place.key, bundle, offer if on_top else replace(offer, once=FREE))
    place.running()
    assert place.job()["StoppingCondition"]["MaxRuntimeInSeconds"] == seconds
    reserved = offer.hourly.for_hours(timedelta(hours=1)) + (offer.once if on_top else FREE)
    assert offer.hourly.for_hours(timedelta(seconds=seconds) + timedelta(minutes=3)) <= reserved
    place.backend.cancel(place.key)
    place.ended()


def test_a_segment_for_which_nothing_is_left_is_refused_before_anything_is_sent(
    make_backend: Callable[..., SageMakerBackend], place: Any
) -> None:
    place.backend = make_backend(shortest="20s", grace="2m", upload="1m", longest="3h")
    bundle = make_bundle(place.home / "bundle", place.key, Wanted(**{**LONG, "limits": Limits(seconds=19)}))
    with pytest.raises(BudgetExhausted, match="less than 20 s"):
        place.backend.submit(place.key, bundle, replace(place.offer(bundle), once=FREE))
    assert place.orders() == 0 and not place.account.names()


@pytest.mark.parametrize("arrived", [True, False])
def test_cancelled_while_the_answer_to_the_order_is_out_it_is_stopped_or_never_sent_again(
    make_backend: Callable[..., SageMakerBackend], place: Any, arrived: bool
) -> None:
    place.backend = make_backend(http_tries=1)
    place.submit(**LONG)
    place.fault(FaultKind.LOST_ANSWER if arrived else FaultKind.SERVER_ERROR)
    assert "asked again" in (place.backend.poll(place.key).note or "")
    place.backend.cancel(place.key)
    assert place.ended().state is SegmentState.CANCELLED
    assert [job["TrainingJobStatus"] for job in place.account.jobs()] == ["Stopped"] * arrived


def test_a_job_is_looked_at_by_its_name_and_nothing_changes_by_that(place: Any) -> None:
    place.submit()
    assert "not ordered yet" in place.backend.monitor("faults").note and place.orders() == 0
    ended = place.ended()
    for name in ("faults", place.key, place.job()["TrainingJobName"]):
        assert place.backend.monitor(name) == ended
    with pytest.raises(NotFound):
        place.backend.monitor("another")


def test_the_cost_of_a_running_job_is_never_below_what_has_been_billed(place: Any) -> None:
    place.variant = SPOT
    place.submit(**LONG)
    place.running()
    time.sleep(1.1)
    running = place.until(lambda status: status.cost > FREE)[-1]
    assert running.state is SegmentState.RUNNING
    place.emulated.disk.configure(expired_keys=["AKIATEST"])
    unseen = place.until(lambda status: "expired" in (status.note or ""))[-1]
    assert unseen.cost >= running.cost
    place.emulated.disk.configure(expired_keys=[])
    place.backend.cancel(place.key)
    ended = place.ended()
    assert ended.state is SegmentState.CANCELLED and ended.cost == billed(place.job())
