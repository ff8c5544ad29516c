"""A byte flipped in what the walk has left behind is refused by the command that would use it, naming the file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from elias.cli.shell import run_command
from elias.config import load
from elias.domain.run import Wish
from elias.testing.waiting import PATIENCE_S, wait_until
from elias.wiring.stores import open_stores

pytestmark = pytest.mark.slow

TRAIN = "train --base tiny --rank 4 --batch-size 2 --sequence-length 192 --yes"
FLIPS = 3
"""Of each file, at places drawn from a seed."""


@dataclass(frozen=True)
class Walked:
    """A home with a finished model and a paused run."""

    home: Path
    paused: str

    def files(self, what: str) -> list[Path]:
        with open_stores(load()) as stores:
            model = stores.models.artifact("latest")
            corpus = stores.corpora.get("latest")
        artifact = self.home / "artifacts" / "sha256" / model.digest.hex
        segment = self.home / "runs" / self.paused / "segments" / "0001"
        blobs = self.home / "blobs" / "sha256"
        return {
            "adapter": sorted((artifact / "adapter").iterdir()),
            "signature": [artifact / "model.sig"],
            "receipt": [artifact / "receipt.dsse.json"],
            "corpus to train on": [blobs / corpus.train.hex[:2] / corpus.train.hex],
            "corpus to judge by": [blobs / corpus.heldout.hex[:2] / corpus.heldout.hex],
            "checkpoint": sorted(max((segment / "out" / "checkpoint").glob("step-*")).iterdir()),
            "trainer archive": [segment / "in" / "trainer.pyz"],
        }[what]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    home = tmp_path_factory.mktemp("walked")
    code = home / "session.py"
    code.write_text("\n\n".join(f'def add_{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(40)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELIAS_HOME", str(home / "home"))
        for line in ("init", f"capture code {code}", "corpus build --heldout-share 0.3", f"{TRAIN} --steps 4"):
            assert elias(line) == 0, line
        yield Walked(home=home / "home", paused=paused_run(home / "home"))


def paused_run(home: Path) -> str:
    """One that has trained a little: its id."""
    command = [sys.executable, "-c", "from elias.cli import main; main()", *TRAIN.split()]
    with subprocess.Popen([*command, "--steps", "150", "--checkpoint-minutes", "0.005"], env=dict(os.environ)) as child:
        wait_until(lambda: list(home.glob("backends/local/segments/*/out/checkpoint/step-*/manifest.json")))
        trainer = trainer_under(home)
        trainer.suspend()  # so that it has not ended when it is told to pause
        with ThreadPoolExecutor(1) as beside:
            going_on = beside.submit(resume_once_told, trainer)
            assert elias("run pause latest") == 0
            going_on.result()
        assert child.wait(PATIENCE_S) == 0
    with open_stores(load()) as stores:
        [run] = [run for run in stores.runs.list() if run.state == "paused"]
    return run.id


def trainer_under(home: Path) -> psutil.Process:
    """The one that lives."""
    found = (json.loads(who.read_bytes())["pid"] for who in home.glob("backends/local/segments/*/who.json"))
    [process] = [psutil.Process(pid) for pid in found if psutil.pid_exists(pid)]
    return process


def resume_once_told(trainer: psutil.Process) -> None:
    with open_stores(load()) as stores:
        wait_until(lambda: any(run.wish is Wish.PAUSE for run in stores.runs.list()))
    trainer.resume()


def elias(line: str) -> int:
    words = line.split()
    return run_command("elias", words[0], words[0], words[1:])


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("adapter", "model verify latest"),
        ("adapter", "model judge latest --evaluators heldout_loss"),
        ("signature", "model verify latest"),
        ("receipt", "model verify latest"),
        ("corpus to train on", f"{TRAIN} --steps 4"),
        ("corpus to judge by", "model judge latest --evaluators heldout_loss"),
        ("checkpoint", "run resume PAUSED"),
        ("trainer archive", "run resume PAUSED"),
    ],
)
def test_a_flipped_byte_is_refused_and_its_file_named(
    walked: Walked, what: str, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = count_runs()
    for path in walked.files(what):
        places = random.Random(f"{what} {path.name[:8]}")
        for _ in range(FLIPS):
            with flipped(path, places.randrange(path.stat().st_size), 1 << places.randrange(8)) as where:
                capfd.readouterr()
                code = elias(command.replace("PAUSED", walked.paused))
                said = capfd.readouterr()
            assert code == 4, f"{path.name}, {where}: {said.err}"
            # a changed list of digests may read as a change of what it lists: one of the two is named
            named = path.parent if path.name == "manifest.json" else path
            assert str(named) in said.err or (path.parent.name == "adapter" and path.name in said.err), where
            assert "fix:" in said.err
    assert count_runs() == runs, "a refused command began a run"


def test_with_every_byte_put_back_all_of_it_is_taken_again(walked: Walked, capfd: pytest.CaptureFixture[str]) -> None:
    assert elias("model verify latest --json") == 0
    before = json.loads(capfd.readouterr().out)["digest"]
    assert elias(f"run resume {walked.paused}") == 0
    assert elias("model list --json") == 0
    capfd.readouterr()
    with open_stores(load()) as stores:
        assert stores.runs.get(walked.paused).state == "done"
        assert before in [model.digest for model in stores.models.artifacts()]


@contextmanager
def flipped(path: Path, offset: int, bits: int) -> Iterator[str]:
    """With these bits of that byte turned over, and turned back afterwards."""
    mode, whole = path.stat().st_mode, path.read_bytes()
    changed = bytearray(whole)
    changed[offset] ^= bits
    path.chmod(0o600)
    path.write_bytes(changed)
    try:
        yield f"byte {offset} of {len(whole)}, bits {bits:08b}"
    finally:
        path.write_bytes(whole)
        path.chmod(mode)


def count_runs() -> int:
    with open_stores(load()) as stores:
        return len(stores.runs.list())
