"""How a job stands and how it ended: from SageMaker's words for it, and from what lay in its outbox."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elias.adapters.backends.outcome import RESUME, own_result
from elias.adapters.backends.sagemaker.inbox import steps_home
from elias.adapters.backends.sagemaker.jobs import Described
from elias.adapters.backends.sagemaker.ledger import Entry, StopFor
from elias.domain.run import SegmentState
from elias.ports.backend import Status
from elias.units import FREE, Money
from elias_trainer.contract import FailureKind, Outcome, Result

SMALLER = (
    "use --method qlora, a smaller batch, --gradient-checkpointing, or a larger --instance; then: elias run resume"
)
PYRAGE = "pip download --no-deps pyrage, into the folder of [backends.sagemaker] wheels; then: elias run resume"
LOOK = "elias run logs shows what it said last; then: elias run resume"
IN_THE_CONTAINER = ("Training", "Uploading", "Stopping", "Interrupted", "MaxRuntimeExceeded", "Restarting")
NOTES = {
    "Starting": "SageMaker looks for an instance",
    "Pending": "SageMaker looks for an instance",
    "LaunchingMLInstances": "SageMaker starts the instance",
    "PreparingTrainingStack": "SageMaker sets the instance up",
    "DownloadingTrainingImage": "the instance fetches the image",
    "Downloading": "the instance fetches the inputs",
    "Training": "it trains",
    "Uploading": "the outputs go to S3",
    "Interrupted": "AWS took the spot instance away; the job waits for another one",
    "Restarting": "the job starts again",
    "Stopping": "it is being stopped, and saves what it has",
}
REASONS: tuple[tuple[str, FailureKind, str], ...] = (
    (r"CapacityError|InsufficientCapacity|[Uu]nable to provision", FailureKind.CAPACITY, RESUME),
    (r"ResourceLimitExceeded", FailureKind.QUOTA, "elias aws check names the quota to be raised"),
    (r"[Oo]ut ?[Oo]f ?[Mm]emory|OutOfMemory", FailureKind.USER, SMALLER),
    (r"has no pyrage", FailureKind.USER, PYRAGE),
    (r"InternalServerError|InternalFailure", FailureKind.INFRASTRUCTURE, RESUME),
    (r"is not the sha256:", FailureKind.VERIFICATION, RESUME),
    (
        r"ClientError: .*(Data download failed|Artifact upload failed).*(Timeout|SlowDown)",
        FailureKind.INFRASTRUCTURE,
        RESUME,
    ),
    (r"ClientError|AccessDenied", FailureKind.USER, "elias aws check; then: elias run resume"),
    (r"exit code: 7[0-9]\b|ExitCode 75", FailureKind.VERIFICATION, RESUME),
    (r"exit code: 1(37|43)\b|ExitCode 137", FailureKind.INFRASTRUCTURE, RESUME),
    (r"AlgorithmError: .*exit code: 1\b", FailureKind.USER, LOOK),  # the same again would only cost the same again
)
"""Of a FailureReason, the first pattern that matches. 137 is SIGKILL: the kernel's, where memory is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What a job left behind."""

    entry: Entry
    described: Described
    out: Path
    problem: str | None = None
    """Why the finished adapter did not come home."""


def live_status(entry: Entry, described: Described, now: datetime) -> Status:
    """Of a job that has not ended."""
    secondary = str(described.get("SecondaryStatus", "Starting"))
    is_running = secondary in IN_THE_CONTAINER and described.get("TrainingStartTime") is not None
    return Status(
        state=SegmentState.RUNNING if is_running else SegmentState.PENDING,
        accelerator=entry.instance,
        started_at=started_at(described) if is_running else None,
        cost=cost_of(entry, described, now),
        note=_note(entry, secondary),
    )


def cost_of(entry: Entry, described: Described, now: datetime) -> Money:
    """What SageMaker bills, at the on-demand price: the seconds hold the spot discount already.

    While it runs an upper estimate: every second since its start, as if nothing were taken off.
    """
    hourly, count = Money(entry.hourly), int(described["ResourceConfig"]["InstanceCount"])
    billed = described.get("BillableTimeInSeconds")
    begun = described.get("TrainingStartTime")
    if billed is not None:
        span = timedelta(seconds=int(billed))
    elif begun is None:
        return FREE
    else:
        end = described.get("TrainingEndTime") or now
        span = max(timedelta(0), end - begun)
    return Money(hourly.for_hours(span).micro_usd * count)


def started_at(described: Described) -> datetime | None:
    begun = described.get("TrainingStartTime")
    return begun.astimezone(UTC) if begun else None


def interruptions_in(described: Described) -> int:
    return sum(1 for step in described.get("SecondaryStatusTransitions", []) if step["Status"] == "Interrupted")


def has_begun(described: Described) -> bool:
    """Whether an instance was found."""
    return described.get("TrainingStartTime") is not None or any(
        step["Status"] in ("Downloading", "DownloadingTrainingImage", "Training")
        for step in described.get("SecondaryStatusTransitions", [])
    )


def final_state(ended: Ended) -> Status:
    """The segment's final status; its times and cost are left to the caller."""
    entry, result = ended.entry, own_result(ended.out, ended.entry.key)
    is_done = result is not None and result.outcome is Outcome.DONE and ended.problem is None
    if entry.stop_for == StopFor.MISMATCH:
        what = f"SageMaker made another job than was ordered, and it was stopped: {entry.mismatch}"
        return Status.failed(FailureKind.VERIFICATION, what, "report this, with the job's name; then: elias run resume")
    if is_done:
        return Status(state=SegmentState.DONE, accelerator=_accelerator(result, entry))
    if entry.stop_for == StopFor.CANCEL:
        return Status(state=SegmentState.CANCELLED, accelerator=entry.instance)
    if ended.problem is not None:
        return Status.failed(FailureKind.INFRASTRUCTURE, f"{ended.problem}; {_kept(ended.out)}", RESUME)
    if result is not None and result.failure is not None:
        return Status.failed(result.failure.kind, result.failure.message, result.failure.fix)
    return _unfinished(ended, result)


def of_reason(reason: str) -> tuple[FailureKind, str]:
    """What a FailureReason means, and what helps; a trainer that said nothing itself is worth another try."""
    for pattern, kind, fix in REASONS:
        if re.search(pattern, reason):
            return kind, fix
    return FailureKind.INFRASTRUCTURE, RESUME


def _unfinished(ended: Ended, result: Result | None) -> Status:
    """It was stopped, ran into a limit, or broke; what it saved is home."""
    entry, described = ended.entry, ended.described
    primary, secondary = described["TrainingJobStatus"], described["SecondaryStatus"]
    kept = _kept(ended.out)
    if entry.stop_for == StopFor.NEVER_STARTED:
        what = f"SageMaker found no {entry.instance} for it in time; it was stopped, and nothing was billed"
        return Status.failed(FailureKind.CAPACITY, what, RESUME)
    if entry.stop_for == StopFor.IN_VAIN:
        what = f"AWS took the spot instance away {entry.interruptions} times and nothing was gained; {kept}"
        return Status.failed(FailureKind.PREEMPTED, what, RESUME)
    if secondary == "MaxWaitTimeExceeded":
        what = f"no spot {entry.instance} was to be had for it in time; {kept}"
        return Status.failed(FailureKind.PREEMPTED if has_begun(described) else FailureKind.CAPACITY, what, RESUME)
    if primary == "Stopped" and secondary != "MaxRuntimeExceeded" and entry.stop_for is None:
        what = f"the job {entry.job} was stopped by somebody else, as in the AWS console; {kept}"
        return Status.failed(FailureKind.USER, what, RESUME)  # what a person stopped does not start again by itself
    if result is not None:
        return Status(state=SegmentState.PAUSED, accelerator=_accelerator(result, entry))
    if primary == "Failed":
        reason = str(described.get("FailureReason") or "no reason given")
        kind, fix = of_reason(reason)
        return Status.failed(kind, f"the job failed: {reason}; {kept}", fix)
    if max(steps_home(ended.out), default=0) > entry.start_step:
        return Status(state=SegmentState.PAUSED, accelerator=entry.instance, note=f"it ended {secondary}; {kept}")
    if entry.stop_for == StopFor.PAUSE:
        return Status(
            state=SegmentState.CANCELLED, accelerator=entry.instance, note="paused before its first checkpoint"
        )
    return Status.failed(FailureKind.INFRASTRUCTURE, f"the job ended {secondary} without a word; {kept}", RESUME)


def _note(entry: Entry, secondary: str) -> str:
    if entry.stop_for is not None:
        return f"it is stopped ({entry.stop_for.replace('_', ' ')}); SageMaker says {secondary}"
    return f"{NOTES.get(secondary, f'SageMaker says {secondary}')} ({entry.job} on {entry.instance})"


def _kept(out: Path) -> str:
    kept = steps_home(out)
    return f"the checkpoint of step {kept[0]} came home" if kept else "no checkpoint came home"


def _accelerator(result: Result | None, entry: Entry) -> str:
    """What the trainer computed on; where that was the CPU, what the machine is."""
    return result.accelerator if result is not None and result.accelerator != "cpu" else entry.instance
