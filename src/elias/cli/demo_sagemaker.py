"""`elias demo sagemaker`: one spot job on an emulated SageMaker, taken away once, and what it cost."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elias.cli.demo_walk import Training, Walk, meanwhile, say

if TYPE_CHECKING:
    from elias.testing.sagemaker_emulator import Disk

REGION = "us-east-1"
BUDGET = "20usd"
CHECKPOINT_MINUTES = 0.02
RESPAWN_S = 3.0
"""How long the emulated SageMaker looks for another spot instance: long enough to be seen."""
SYNC_S = 0.5
"""Real seconds after which a checkpoint that is whole in the container has come to S3."""
CONFIG = f"""\
[backends.sagemaker]
region = "{REGION}"
endpoint_url = "{{url}}"
spot = "always"
poll_every = "1s"
"""


def on_sagemaker(place: Path, training: Training) -> dict[str, Any]:
    """What it ordered, how often it was interrupted, and the bill."""
    from elias.testing.sagemaker_emulator import SageMakerEmulator

    account = {
        "AWS_ACCESS_KEY_ID": "AKIAEMULATED",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_CONFIG_FILE": str(place / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(place / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with SageMakerEmulator(place / "emulated-aws") as emulated:
        emulated.disk.configure(respawn_s=RESPAWN_S)
        (place / "node" / "config.toml").write_text(CONFIG.format(url=emulated.url))
        walk = Walk(place=place, account=account)
        _walk(walk, training, emulated.disk)
        bill = _bill(emulated.disk)
        walk.run("budget", "show")
        walk.run("model", "verify", "latest")
        walk.run("aws", "sweep")
    return {"jobs_run": len(bill), "bill": bill}


def _walk(walk: Walk, training: Training, disk: Disk) -> None:
    walk.to_a_corpus()
    walk.run("aws", "setup", "--apply")
    wanted = ["--strategy", "sagemaker", "--base", training.base, "--steps", str(training.steps), "--budget", BUDGET]
    wanted += ["--sequence-length", "512"]
    walk.run("plan", *wanted)
    say(
        "no GPU here: this machine's processor stands in for the instance; AWS takes it away after its first checkpoint"
    )
    with meanwhile(partial(_interrupt, disk)):
        walk.run("train", *wanted, "--checkpoint-minutes", str(CHECKPOINT_MINUTES), "--yes")


def _interrupt(disk: Disk, over: threading.Event) -> None:
    """Take the first spot instance away once a checkpoint has left it."""
    from elias_trainer.parcel import OUTBOX_FILE, Outbox

    while not over.wait(0.1):
        for file in disk.root.glob(f"jobs/*/*/opt-ml/checkpoints/{OUTBOX_FILE}"):
            checkpoints = Outbox.read(file.parent).checkpoints
            if checkpoints and not over.wait(SYNC_S):
                job = file.parents[2]
                disk.interrupt(job.name, job.parent.name)
                say(f"AWS takes the instance away from {job.name}; a checkpoint is in S3")
                return


def _bill(disk: Disk) -> list[dict[str, Any]]:
    """What the emulated AWS asks for each job, as it would stand on a bill."""
    from elias.testing.sagemaker_emulator.bill import cost_of_job
    from elias.testing.sagemaker_emulator.catalog import PRICES
    from elias.units import Money

    prices, bill = PRICES | disk.settings.prices, []
    for folder, job in disk.jobs():
        kind, cost = job["ResourceConfig"]["InstanceType"], Money.usd(cost_of_job(job, prices)).micro_usd / 1_000_000
        trained, billed = job["TrainingTimeInSeconds"], job["BillableTimeInSeconds"]
        taken = sum(step["Status"] == "Interrupted" for step in job["SecondaryStatusTransitions"])
        say(
            f"bill: {folder.name}: {trained} s on {kind}, taken away {taken} time{'' if taken == 1 else 's'}; "
            f"spot bills {billed} s at ${prices[kind]} an hour: ${cost:.6f}"
        )
        bill.append({"job": folder.name, "instance": kind, "interruptions": taken, "cost_usd": cost})
    return bill
