"""The smallest CPU job: on the real SageMaker with `make test-live-sagemaker`, and always against the emulated one."""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pyrage
import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.policies import caller_policy
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.adapters.backends.sagemaker.setup import Setup, State
from elias.adapters.backends.sagemaker.sweep import Sweep
from elias.adapters.clock import SystemClock
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.ports.backend import BackendContext, Status
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias.units import Money
from elias_trainer.contract import Limits, Recipe

TYPE = "ml.m5.large"
IS_ASKED = os.environ.get("ELIAS_LIVE_SAGEMAKER") == "1"
LIMIT = timedelta(minutes=20)
MOST = Money.usd("0.10")


@pytest.mark.slow
@pytest.mark.skipif(
    not (IS_ASKED and boto3.Session().get_credentials() is not None),
    reason="no real SageMaker: needs ELIAS_LIVE_SAGEMAKER=1 (make test-live-sagemaker sets it), credentials that boto3 "
    "finds, AWS_DEFAULT_REGION, and what `elias aws setup --apply` makes",
)
def test_the_smallest_job_on_the_real_service_comes_home(tmp_path: Path) -> None:
    """Costs about a cent; everything of it is removed again, whatever way it ends."""
    lacking = [found.part for found in Setup(Clients(SageMakerSettings())).look() if found.state is State.MISSING]
    assert not lacking, f"missing in this account: {lacking}; elias aws setup --apply makes it"
    a_small_job_comes_home(tmp_path, {}, LIMIT)


@pytest.mark.slow
def test_the_same_job_against_the_emulated_service(account, clients, tmp_path: Path) -> None:
    account.disk.configure(prices={TYPE: "0.115"})
    list(Setup(clients).apply())
    before = len(account.disk.requests())
    quick = {"poll_every": "0s", "calls_per_minute": 1_000_000, "grace": "0s", "upload": "0s", "python": sys.executable}
    a_small_job_comes_home(
        tmp_path, {"region": "us-east-1", "endpoint_url": account.url, **quick}, timedelta(minutes=10), step_s=0.01
    )
    allowed = {
        action.partition(":")[2]
        for statement in caller_policy(Setup(clients).place())["Statement"]
        for action in statement["Action"]
    }
    called = {request["call"] for request in account.disk.requests()[before:]}
    refused = {call for call in called if not call.startswith("s3.")} - allowed - {"GetCallerIdentity"}
    assert not refused, "calls that the policy for the node does not hold"


def a_small_job_comes_home(folder: Path, settings: dict[str, Any], limit: timedelta, step_s: float = 0.5) -> None:
    context = BackendContext(
        name="sagemaker",
        node=f"live-test-{os.getpid()}",
        home=folder / "node",
        settings={"instance": TYPE, "spot": "never", "keep_artifacts": False, "longest": "15m", **settings},
        clock=SystemClock(),
        node_key=str(pyrage.x25519.Identity.generate()),
    )
    backend = SageMakerBackend(context)
    key = f"live{int(time.time())}-0001"
    limits = Limits(seconds=780, checkpoint_every_s=20)
    wanted = Wanted(base=fake_base(step_s=step_s), recipe=Recipe(max_steps=40), limits=limits, label=Label.PUBLIC)
    bundle = make_bundle(folder / "bundle", key, wanted)
    offers = {offer.variant: offer for offer in backend.offers(need_of(bundle))}
    assert offers[TYPE].refused is None, offers[TYPE].refused
    handle = backend.submit(key, bundle, offers[TYPE])
    sweep = Sweep(Clients(backend.settings), context.node)
    try:
        status = waited_for(backend, handle, limit)
        assert status.state is SegmentState.DONE, status
        assert Money(0) < status.cost <= MOST
        backend.fetch(handle, folder / "home")
        assert (folder / "home" / "adapter" / "adapter_model.safetensors").exists()
    finally:
        backend.cancel(handle)  # of no effect on one that has ended
        waited_for(backend, handle, limit)
        backend.forget(handle)
    assert list(sweep.jobs()) == [] and list(sweep.runs()) == [], "nothing stays behind"
    backend.close()


def waited_for(backend: SageMakerBackend, handle: str, limit: timedelta) -> Status:
    """Its end, what it is at printed meanwhile."""
    until, said = time.monotonic() + limit.total_seconds(), None
    while time.monotonic() < until:
        status = backend.poll(handle)
        if status.state.is_final:
            return status
        if status.note != said:
            print(said := status.note, flush=True)
        time.sleep(0.05 if backend.settings.endpoint_url else 5)
    raise AssertionError(f"it has not ended within {limit}; last heard: {said}")
