"""Kills the coordinator of a run on the emulated Kaggle with -9 at each request that it makes, and counts what was lost
or done twice. A run is two chained segments with private data; each kill has a run of its own, which another process
then goes on with.

    python bench/kaggle_kills.py                       every request of the undisturbed run, at each of three moments
    python bench/kaggle_kills.py --requests 1-9,14     some of them
    python bench/kaggle_kills.py --moments reached     one of: unsent, reached (no answer yet), answered (not acted on)
    python bench/kaggle_kills.py --record kills.jsonl    goes on where it was ended; the totals are of all

Prints one JSON line; exits 1 when a step, a push or an upload was lost or repeated, or anything was left behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from request_kills import FIRST_STEPS, STEPS, Place, begin, differences, forked, main, names

from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.config.schema import Config
from elias.config.schema import Training as TrainingConfig
from elias.domain.run import Bounds
from elias.services.runs import Wanted
from elias.testing.fake_trainer import fake_base
from elias.testing.kaggle_emulator import Disk, KaggleEmulator
from elias_trainer.contract import Recipe


def set_up(home: Path) -> None:
    os.environ |= {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": str(home / "config")}
    os.environ.pop("KAGGLE_API_TOKEN", None)
    import dbos  # noqa: F401 # a second saved in each process
    import kaggle.api.kaggle_api_extended  # noqa: F401


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A node with a run that is to begin, and the Kaggle that it knows."""

    home: Path
    script: str
    run: str
    emulated: KaggleEmulator

    @classmethod
    def prepare(cls, folder: Path) -> World:
        home, script = folder / "node", folder / "template.py"
        home.mkdir(parents=True)
        script.write_text(as_script(template_text()))
        emulated = KaggleEmulator(folder / "kaggle")
        run = begin(config_of(home, emulated.url, str(script)), wanted(STEPS, segment_steps=FIRST_STEPS))
        return cls(home=home, script=str(script), run=run, emulated=emulated)

    def config(self) -> Config:
        return config_of(self.home, self.emulated.url, self.script)

    def requests(self) -> list[dict[str, Any]]:
        return self.emulated.disk.requests()

    @contextmanager
    def served(self) -> Iterator[None]:
        stop = forked.Event()
        process = forked.Process(target=self._serve, args=(stop,))
        process.start()
        try:
            yield
        finally:
            stop.set()
            process.join()

    def _serve(self, stop: Any) -> None:
        with self.emulated:
            stop.wait()

    def client(self) -> type:
        import requests

        return requests.Session

    def faults(self) -> list[str]:
        root, sent = self.emulated.disk.root, Counter(request["call"] for request in self.requests())
        return differences(
            self,
            {
                "kernels pushed": (sent["SaveKernel"], 2),
                "datasets made": (sent["CreateDataset"], 3),  # the run's, and a key for each segment
                "versions added": (sent["CreateDatasetVersion"], 1),
                "left on Kaggle": (names(root, "kernels/*/*") + names(root, "datasets/*/*"), []),
            },
        )


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
        "poll_every": "0.2s",
        "stale_wait": "0.05s",
        "settle": "0.3s",
        "base_url": url,
        "template": template,
    }
    training = TrainingConfig(checkpoint_every=timedelta(seconds=0.5))
    return Config(home=home, training=training, backends={"kaggle": quick | settings})


def wanted(steps: int, **bounds: Any) -> Wanted:
    return Wanted(
        strategy="kaggle", base=fake_base(step_s=0.01), recipe=Recipe(max_steps=steps), bounds=Bounds(**bounds)
    )


if __name__ == "__main__":
    sys.exit(main(Place(name="kaggle", prepare=World.prepare, set_up=set_up, patience_s=900), __doc__ or ""))
