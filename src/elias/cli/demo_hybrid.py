"""`elias demo hybrid`: one run handed from an emulated SageMaker to an emulated Kaggle, back, and home."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elias.cli.demo_walk import Training, Walk, meanwhile, say

if TYPE_CHECKING:
    from elias.testing.kaggle_emulator import Disk

CONFIG = """\
[training]
hybrid_without = ["local"]

[backends.kaggle]
base_url = "{kaggle}"
poll_every = "1s"
margin = "1m"

[backends.sagemaker]
endpoint_url = "{sagemaker}"
region = "us-east-1"
instance = "ml.g5.xlarge"
poll_every = "1s"
"""
WEEK_S = 30 * 3600.0
"""Kaggle's hours of a week."""
USED_UP_S = 60.0
"""Less than a session is worth."""
SEGMENTS = 3


def on_all(place: Path, training: Training) -> dict[str, Any]:
    """How many kernels and jobs it took. Raises BackendError."""
    from elias.testing.kaggle_emulator import KaggleEmulator
    from elias.testing.sagemaker_emulator import SageMakerEmulator

    with ExitStack() as open_:
        kaggle = open_.enter_context(KaggleEmulator(place / "emulated-kaggle"))
        sagemaker = open_.enter_context(SageMakerEmulator(place / "emulated-aws"))
        # each session takes a whole week's hours, so that the one after it has to go elsewhere
        kaggle.disk.configure(gpu_seconds_a_week=USED_UP_S, gpu_least_s=WEEK_S)
        (place / "node" / "config.toml").write_text(CONFIG.format(kaggle=kaggle.url, sagemaker=sagemaker.url))
        _walk(Walk(place=place, account=_account(place)), training, kaggle.disk)
        kernels, jobs = len(kaggle.disk.requests("SaveKernel")), len(list(sagemaker.disk.jobs()))
    say(f"kernels pushed to Kaggle: {kernels}; jobs ordered of SageMaker: {jobs}")
    return {"kernels_run": kernels, "jobs_run": jobs}


def _walk(walk: Walk, training: Training, kaggle: Disk) -> None:
    walk.to_a_corpus()
    walk.run("aws", "setup", "--apply")
    segment = -(-training.steps // SEGMENTS)
    run = ["--strategy", "hybrid", "--base", training.base, "--steps", str(training.steps)]
    run += ["--segment-steps", str(segment), "--sequence-length", "256", "--by", "1h", "--budget", "15usd"]
    say("Kaggle's hours of this week are used up")
    walk.run("plan", *run, "--picture", "-")
    with meanwhile(partial(_begin_week, kaggle, walk.place / "node" / "runs")):
        walk.run("train", *run, "--yes")
    walk.run("run", "show", "latest")
    walk.run("budget", "show")
    walk.run("model", "verify", "latest")


def _begin_week(kaggle: Disk, runs: Path, over: threading.Event) -> None:
    """Kaggle has hours again once the run's first segment is under way."""
    while not over.wait(0.1):
        if any(runs.glob("*/segments/0001")):
            kaggle.configure(gpu_seconds_a_week=WEEK_S)
            say("a new week begins on Kaggle, with hours for one session")
            return


def _account(place: Path) -> dict[str, str]:
    return {
        "KAGGLE_USERNAME": "emulated",
        "KAGGLE_KEY": "none",
        "KAGGLE_CONFIG_DIR": str(place / "no-credentials"),
        "AWS_ACCESS_KEY_ID": "AKIAEMULATED",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_CONFIG_FILE": str(place / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(place / "no-credentials-of-aws"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
