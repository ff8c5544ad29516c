"""What work costs in time at a place that may take its machine away: expected, restarts and lost steps counted in.

With interruptions as a Poisson process of rate `h` an hour, a checkpoint every `c` hours (its writing counted in) and
`r` hours to start again, `w` hours of work take on average

    w / c * e^(h r) * (e^(h c) - 1) / h          (Daly 2006, doi:10.1016/j.future.2004.11.016)

which for small `h` is w (1 + h (r + c / 2)): each interruption costs a new start and half a checkpoint's interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NEVER = 1e6
"""Hours; a work that is interrupted faster than it gets on takes no longer than this here."""
_MOST_EXPONENT = 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """In hours."""

    steps: float
    """Of training alone."""
    start: float
    """From a start to the first step."""
    between_checkpoints: float


def expected_hours(work: Work, interruptions_per_hour: float) -> float:
    """Of the whole work, its first start counted in; waiting for the next machine is not."""
    if interruptions_per_hour <= 0:
        return work.start + work.steps
    rate, interval = interruptions_per_hour, max(min(work.between_checkpoints, work.steps), 1e-9)
    if rate * (work.start + interval) > _MOST_EXPONENT:
        return NEVER
    within = rate * interval
    stretch = math.exp(rate * work.start) * (math.expm1(within) / within if within > 0 else 1.0)
    return min(NEVER, work.start + work.steps * stretch)
