"""A node that carries one run on the emulated Kaggle, in a process that a test can kill: HOME URL RUN [DIE_AFTER].

With DIE_AFTER it kills itself, as -9 does, right after the answer to that request to Kaggle has arrived.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.config.schema import Training as TrainingConfig
from elias.domain.run import Run, RunState, Segment
from elias.testing.blobs import FolderBlobs
from elias.testing.fake_trainer import build_fake_trainer
from elias.testing.kaggle_emulator import Disk
from elias.units import Clock
from elias.wiring.train import Parts
from elias_trainer.contract import Digest, digest_file


class EmulatedClock:
    """The time of the emulated Kaggle, which a test moves on by weeks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def now(self) -> Any:
        return self._disk.now()

    def sleep(self, span: timedelta) -> None:
        time.sleep(span.total_seconds())


def config_of(home: Path, url: str, template: str, **settings: Any) -> Config:
    quick = {
        "session_limit": "20m",
        "margin": "5s",
        "retry_wait": "0.05s",
        "poll_every": "0.05s",
        "stale_wait": "0.05s",
        "settle": "0.3s",
        "base_url": url,
        "template": template,
    }
    training = TrainingConfig(checkpoint_every=timedelta(seconds=0.5))
    return Config(home=home, training=training, backends={"kaggle": quick | settings})


def parts_of(home: Path, clock: Clock | None = None) -> Parts:
    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        return digest_file(out / "adapter" / "adapter_model.safetensors")

    return Parts(
        archive=build_fake_trainer, finish=finish, blobs=FolderBlobs(home / "blobs"), clock=clock or SystemClock()
    )


def die_after(requests_left: int) -> None:
    """This process ends as by -9, once so many requests were answered."""
    import requests

    send, count = requests.Session.send, 0

    def counted(self: Any, request: Any, **options: Any) -> Any:
        nonlocal count
        answer = send(self, request, **options)
        count += 1
        if count >= requests_left:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    requests.Session.send = counted  # type: ignore[method-assign] # the vendor's, to count what crosses the wire


def main(home: Path, url: str, template: str, run_id: str, requests_left: int | None) -> None:
    from elias.wiring.train import open_training

    if requests_left is not None:
        die_after(requests_left)
    with open_training(config_of(home, url, template), parts_of(home)) as training:
        training.launch()
        while not training.stores.runs.get(run_id).state.is_final:
            if training.stores.runs.get(run_id).state is RunState.FAILED:
                sys.exit(f"failed: {training.stores.runs.get(run_id).reason}")
            time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]) if len(sys.argv) > 5 else None)
