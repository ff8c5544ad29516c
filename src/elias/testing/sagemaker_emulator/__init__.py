"""An emulated SageMaker: the calls that boto3 and `aws` make, on loopback, jobs that really run, faults on demand.

Training jobs, their tags, the price list and service quotas are answered here; S3, STS, KMS, IAM and CloudWatch Logs
are moto's, live in this process's memory and end with it. Not emulated: GPUs, images, more than one instance a job,
IAM decisions, Pipe mode. The entry point is not process 1 of its container. Start it with
`python -m elias.testing.sagemaker_emulator --root DIR --port N`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elias.testing.sagemaker_emulator.disk import Disk
from elias.testing.sagemaker_emulator.faults import Fault, FaultKind

if TYPE_CHECKING:
    from elias.testing.sagemaker_emulator.app import SageMakerEmulator

__all__ = ["Disk", "Fault", "FaultKind", "SageMakerEmulator"]


def __getattr__(name: str) -> Any:
    """The server, with all of moto, is imported by whoever serves; a process that adds a fault does not need it."""
    if name == "SageMakerEmulator":
        from elias.testing.sagemaker_emulator import app

        return app.SageMakerEmulator
    raise AttributeError(name)
