"""A two-minute job on the real Kaggle: `make test-live-kaggle`, with credentials in the environment."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.clock import SystemClock
from elias.domain.run import SegmentState
from elias.ports.backend import BackendContext, Status
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias_trainer.contract import Limits, Recipe

CREDENTIALS = ("KAGGLE_API_TOKEN", "KAGGLE_KEY")
FILES = ("kaggle.json", "access_token")
IS_ASKED = os.environ.get("ELIAS_LIVE_KAGGLE") == "1"
HAS_CREDENTIALS = any(os.environ.get(name) for name in CREDENTIALS) or any(
    (Path.home() / ".kaggle" / name).exists() for name in FILES
)


@pytest.mark.slow
@pytest.mark.skipif(
    not (IS_ASKED and HAS_CREDENTIALS),
    reason="no real Kaggle: needs ELIAS_LIVE_KAGGLE=1 (make test-live-kaggle sets it) and credentials: "
    "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json",
)
def test_a_two_minute_job_on_the_real_service_comes_home(tmp_path: Path) -> None:
    """Takes some minutes of the account's GPU hours, and leaves nothing there, whatever way it ends."""
    context = BackendContext(
        name="kaggle",
        node="live-test",
        home=tmp_path / "node",
        settings={"session_limit": "15m", "cancel_by": "delete"},
        clock=SystemClock(),
        node_key=str(pyrage.x25519.Identity.generate()),
    )
    backend = KaggleBackend(context)
    key = f"live{int(time.time())}-0001"
    wanted = Wanted(base=fake_base(step_s=1.0), recipe=Recipe(max_steps=60), limits=Limits(checkpoint_every_s=20))
    bundle = make_bundle(tmp_path / "bundle", key, wanted)
    handle = backend.submit(key, bundle, backend.offers(need_of(bundle))[0])
    try:
        status = waited_for(backend, handle)
        assert status.state is SegmentState.DONE, status
        backend.fetch(handle, tmp_path / "home")
        assert (tmp_path / "home" / "adapter" / "adapter_model.safetensors").exists()
    finally:
        backend.cancel(handle)  # of no effect on one that has ended
        backend.poll(handle)
        backend.forget(handle)


def waited_for(backend: KaggleBackend, handle: str) -> Status:
    """Its end, what it is at printed meanwhile."""
    end = time.monotonic() + timedelta(minutes=25).total_seconds()
    said = None
    while not (status := backend.poll(handle)).state.is_final:
        if (status.state, status.note) != said:
            said = (status.state, status.note)
            print(time.strftime("%X"), *said, flush=True)
        assert time.monotonic() < end, "Kaggle did not end it in 25 minutes"
        time.sleep(5)
    return status
