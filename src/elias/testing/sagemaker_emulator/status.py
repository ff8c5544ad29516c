"""A job's record as it walks through its statuses."""

from __future__ import annotations

import math

from elias.testing.emulated import Json
from elias.testing.sagemaker_emulator.disk import FINAL

PRIMARY = {
    "Completed": "Completed",
    "Failed": "Failed",
    "Stopping": "Stopping",
    "Stopped": "Stopped",
    "MaxRuntimeExceeded": "Stopped",
    "MaxWaitTimeExceeded": "Stopped",
}
"""The primary status of a secondary one; `InProgress` for all others."""
MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Interrupted": "Training job interrupted",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}


def move(record: Json, secondary: str, now: float) -> None:
    """Into a secondary status; the primary one follows, but a job that is stopping stays so until it has ended."""
    primary = PRIMARY.get(secondary, "InProgress")
    if not (record.get("TrainingJobStatus") == "Stopping" and primary == "InProgress"):
        record["TrainingJobStatus"] = primary
    record["SecondaryStatus"] = secondary
    transitions = record["SecondaryStatusTransitions"]
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    step = {"Status": secondary, "StartTime": now, "StatusMessage": MESSAGES[secondary]}
    transitions.append(step | ({"EndTime": now} if primary in FINAL else {}))


def settle(record: Json, now: float, discount: float) -> None:
    """The end of a job: when, and what is billed. Whole seconds, rounded up; a spot job's discount is in Billable."""
    if "TrainingStartTime" not in record:
        return
    trained_s = record["TrainedSeconds"]
    record["TrainingEndTime"] = now
    record["TrainingTimeInSeconds"] = math.ceil(trained_s)
    share = 1 - discount if record["EnableManagedSpotTraining"] else 1
    record["BillableTimeInSeconds"] = math.ceil(trained_s * share)
    record["FinalMetricDataList"] = [
        {"MetricName": name, "Value": value, "Timestamp": at} for name, (value, at) in record["Metrics"].items()
    ]
