"""Room 7. A deployment: which model answers, since when, and which one would come back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from elias_trainer.contract import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    id: int
    """1, 2, 3, …: the newest is in service."""
    base: str
    """Reference of the base model."""
    artifact: Digest | None
    """None serves the bare base."""
    engine: str
    """The entry point's name of the inference engine."""
    deployed_at: datetime
    why: str
    """`deploy`, `rollback`, `start`."""
