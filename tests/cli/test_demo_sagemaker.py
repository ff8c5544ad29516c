"""The parts of `elias demo sagemaker`: when it takes the instance away, and the bill that it shows.

The whole of it is walked by hand; a run handed to the emulated SageMaker and home is in `test_demo_hybrid`.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from elias.cli.demo_sagemaker import _bill, _interrupt
from elias.testing.emulated import write
from elias.testing.nouns import a_digest
from elias.testing.sagemaker_emulator import Disk
from elias_trainer.contract import CheckpointRef
from elias_trainer.parcel import Outbox

JOB = {
    "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
    "TrainingTimeInSeconds": 7200,
    "BillableTimeInSeconds": 3600,
    "SecondaryStatusTransitions": [{"Status": "Training"}, {"Status": "Interrupted"}, {"Status": "Completed"}],
}


def test_the_bill_is_of_the_seconds_that_are_billed_and_says_what_was_taken_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk(tmp_path)
    disk.configure(prices={"ml.g5.xlarge": "1.50"})
    write(disk.job("us-east-1", "elias-one") / "job.json", JOB)
    assert _bill(disk) == [
        {"job": "elias-one", "instance": "ml.g5.xlarge", "interruptions": 1, "cost_usd": 1.5},
    ]
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("emulated | bill: elias-one: 7200 s") and "taken away 1 time;" in line
    assert "spot bills 3600 s at $1.50 an hour: $1.500000" in line


def test_the_instance_is_taken_away_once_a_checkpoint_has_left_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, over = Disk(tmp_path), threading.Event()
    job = disk.job("us-east-1", "elias-one")
    checkpoints = job / "opt-ml" / "checkpoints"
    checkpoints.mkdir(parents=True)
    saved = CheckpointRef(step=3, path="checkpoint-3.pack", digest=a_digest("saved"))
    Outbox(checkpoints=(saved,), files={}, sealed=False).write(checkpoints)
    _interrupt(disk, over)
    assert disk.take_order(job, "interrupt")
    assert "AWS takes the instance away from elias-one" in capsys.readouterr().out


def test_a_run_that_is_over_first_loses_no_instance(tmp_path: Path) -> None:
    disk, over = Disk(tmp_path), threading.Event()
    over.set()
    _interrupt(disk, over)
    assert not list(tmp_path.rglob("orders"))
