"""What a node cannot do just now, by name: why, what still works, and when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Trouble(StrEnum):
    BUDGET_GONE = "budget-gone"
    QUOTA_GONE = "quota-gone"
    PLACE_DOWN = "place-down"
    NETWORK_GONE = "network-gone"
    ON_BATTERY = "on-battery"
    INFERENCE_FIRST = "inference-first"
    """Training on this machine has made way for the gateway."""


STILL_WORKS = {
    Trouble.BUDGET_GONE: "inference; training where it costs nothing; every checkpoint is kept",
    Trouble.QUOTA_GONE: "inference; training here and at other places",
    Trouble.PLACE_DOWN: "inference; training here and at other places; what goes on there is asked after again",
    Trouble.NETWORK_GONE: "inference; training on this machine",
    Trouble.ON_BATTERY: "inference; training elsewhere",
    Trouble.INFERENCE_FIRST: "inference; training elsewhere",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Degraded:
    """One state. It is there as long as its cause, and nobody has to take it away."""

    name: Trouble
    about: str
    """Which cap, place or run; empty is the node as a whole."""
    since: datetime
    cause: str
    leaves: str
    """What ends it."""
    until: datetime | None = None
    """When that is expected, or looked for next."""

    @property
    def still_works(self) -> str:
        return STILL_WORKS[self.name]
