"""What spot capacity saves and risks: what is assumed, and what this node has seen. `domain/interruption` does the sum.

SageMaker bills no waiting between an interruption and the next start, and all of the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elias.units import Money
from elias_trainer.contract import write_whole

SAVING = 0.6
"""Of the on-demand price. AWS publishes no spot price for training; 60 to 70 % are what people report: the lower."""
PRIOR_HOURS, PRIOR_INTERRUPTIONS = 20.0, 1.0
"""Assumed before this node has seen any: one interruption in 20 hours, which weighs as much as 20 hours seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Risk:
    interruptions_per_hour: float
    seen_hours: float
    seen_interruptions: int

    @property
    def words(self) -> str:
        if not self.seen_hours:
            return f"{self.interruptions_per_hour:.2f} interruptions an hour assumed, none seen yet"
        return (
            f"{self.interruptions_per_hour:.2f} interruptions an hour, from {self.seen_interruptions} in "
            f"{self.seen_hours:.1f} h seen here"
        )


def spot_hourly(on_demand: Money, saving: float = SAVING) -> Money:
    """What an hour on spot is expected to be billed at, rounded up."""
    return Money(math.ceil(on_demand.micro_usd * (1 - saving)))


class History:
    """What this node saw of spot jobs: hours and interruptions of each ended segment, in a file of the backend's."""

    def __init__(self, home: Path) -> None:
        self._file = home / "spot.json"

    def record(self, segment: str, hours: float, interruptions: int) -> None:
        """Safe to repeat: a segment counts once."""
        seen = dict(self._read())
        seen[segment] = (hours, interruptions)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file, json.dumps(seen, indent=1).encode())

    def risk(self) -> Risk:
        """Mean of a Gamma posterior: the assumed hours and interruptions, and the seen ones, added up."""
        seen = self._read().values()
        hours, interruptions = sum(h for h, _ in seen), sum(n for _, n in seen)
        rate = (PRIOR_INTERRUPTIONS + interruptions) / (PRIOR_HOURS + hours)
        return Risk(interruptions_per_hour=rate, seen_hours=hours, seen_interruptions=interruptions)

    def _read(self) -> Mapping[str, tuple[float, int]]:
        try:
            raw = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        return {segment: (float(hours), int(count)) for segment, (hours, count) in raw.items()}
