"""Faults of the emulated SageMaker: what can go wrong, and in which call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from elias.testing.emulated import AnyFault


class FaultKind(StrEnum):
    THROTTLED = "throttled"
    """ThrottlingException, for S3 SlowDown."""
    SERVER_ERROR = "server_error"
    EXPIRED_CREDENTIALS = "expired_credentials"
    """ExpiredTokenException, for S3 and query calls ExpiredToken. See also `Settings.expired_keys`."""
    LOST_ANSWER = "lost_answer"
    """The call is carried out, then the connection is closed without an answer."""
    RESOURCE_LIMIT = "resource_limit"
    """CreateTrainingJob is refused with ResourceLimitExceeded, whatever the quotas say."""
    INSUFFICIENT_CAPACITY = "insufficient_capacity"
    """CreateTrainingJob is accepted; after `seconds` in Starting the job is Failed with a CapacityError."""
    NEVER_STARTS = "never_starts"
    """CreateTrainingJob is accepted; the job stays in Starting until it is stopped or its MaxWait is over."""
    SPOT_INTERRUPTION = "spot_interruption"
    """CreateTrainingJob with spot: the instance is taken away `seconds` after training began."""
    STOPPED_FROM_CONSOLE = "stopped_from_console"
    """CreateTrainingJob: as if somebody pressed Stop `seconds` after training began."""
    CORRUPTED_MODEL = "corrupted_model"
    """CreateTrainingJob: the model.tar.gz that is uploaded has lost its second half."""
    DROPPED_SPOT = "dropped_spot"
    """CreateTrainingJob with spot: accepted, but the job that is made runs on demand."""


JOB_FAULTS = frozenset(
    {
        FaultKind.INSUFFICIENT_CAPACITY,
        FaultKind.NEVER_STARTS,
        FaultKind.SPOT_INTERRUPTION,
        FaultKind.STOPPED_FROM_CONSOLE,
        FaultKind.CORRUPTED_MODEL,
        FaultKind.DROPPED_SPOT,
    }
)
"""Those that a job carries with it once it was created."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault(AnyFault):
    kind: FaultKind
    call: str = "CreateTrainingJob"
    """The operation's name, such as `DescribeTrainingJob`; for S3 the method: `s3.GET`, `s3.PUT`."""
    seconds: float = 0.0
    """In the emulator's time, see `Disk.set_pace`."""
