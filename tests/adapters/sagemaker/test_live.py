"""The smallest CPU job on the real SageMaker: `make test-live-sagemaker`, with credentials that boto3 finds."""

import os
import time
from pathlib import Path

import boto3
import pyrage
import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.clock import SystemClock
from elias.domain.run import SegmentState
from elias.ports.backend import BackendContext, Status
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias.units import FREE, Money
from elias_trainer.contract import Limits, Recipe

IS_ASKED = os.environ.get("ELIAS_LIVE_SAGEMAKER") == "1"
MOST = Money.usd("0.20")
"""Ten minutes of an ml.m5.large are about two cents."""


@pytest.mark.slow
@pytest.mark.skipif(
    not (IS_ASKED and boto3.Session().get_credentials()),
    reason="no real SageMaker: needs ELIAS_LIVE_SAGEMAKER=1 (make test-live-sagemaker sets it), credentials that boto3 "
    "finds, a region, and what `elias aws setup --apply` makes",
)
def test_the_smallest_job_on_the_real_service_comes_home_and_leaves_nothing(tmp_path: Path) -> None:
    context = BackendContext(
        name="sagemaker",
        node="live-test",
        home=tmp_path / "node",
        settings={"instance": "ml.m5.large", "spot": "never", "keep_artifacts": False},
        clock=SystemClock(),
        environment=os.environ,
        node_key=str(pyrage.x25519.Identity.generate()),
    )
    backend = SageMakerBackend(context)
    key = f"live{int(time.time())}-0001"
    limits = Limits(seconds=900, checkpoint_every_s=20)
    bundle = make_bundle(
        tmp_path / "bundle", key, Wanted(base=fake_base(step_s=1.0), recipe=Recipe(max_steps=60), limits=limits)
    )
    offer = next(offer for offer in backend.offers(need_of(bundle)) if offer.refused is None)
    handle = backend.submit(key, bundle, offer)
    try:
        status = waited_for(backend, handle)
        assert status.state is SegmentState.DONE and FREE < status.cost < MOST, status
        backend.fetch(handle, tmp_path / "home")
        assert (tmp_path / "home" / "adapter" / "adapter_model.safetensors").exists()
    finally:
        backend.cancel(handle)  # of no effect on one that has ended
        waited_for(backend, handle)
        backend.forget(handle)
        backend.close()


def waited_for(backend: SageMakerBackend, handle: str) -> Status:
    """Its end, what it is at printed meanwhile."""
    end, said = time.monotonic() + 1800, None
    while not (status := backend.poll(handle)).state.is_final:
        assert time.monotonic() < end, status
        if status.note != said:
            said = status.note
            print(status.state, said, flush=True)
        time.sleep(5)
    return status
