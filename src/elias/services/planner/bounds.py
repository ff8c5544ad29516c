"""What the rest of a run costs at least: steps split over places at will, by their time and price alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

_SAFE = 1 - 1e-9
"""Against rounding: a bound may be too low, never too high."""


class Hull:
    """The lower convex hull of (time, price) of a step; a mix of two neighbours is the cheapest for a mean time."""

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        kept: list[tuple[int, float]] = []
        for point in sorted(set(points)):
            if kept and point[1] >= kept[-1][1]:
                continue
            while len(kept) > 1 and _is_above(kept[-2], kept[-1], point):
                kept.pop()
            kept.append(point)
        # no points is a hull, too: nothing can be done there
        self.times = [time for time, _ in kept]
        self.prices = [price for _, price in kept]

    def least(self, steps: int, time: int) -> float | None:
        """The lowest price of so many steps within that time; None where not even the fastest place makes it."""
        if not self.times or time < steps * self.times[0]:
            return None
        mean = time / steps
        right = bisect_left(self.times, mean)
        if right == len(self.times):
            return steps * self.prices[-1] * _SAFE
        if right == 0:
            return steps * self.prices[0] * _SAFE
        left = right - 1
        share = (mean - self.times[left]) / (self.times[right] - self.times[left])
        return steps * (self.prices[left] + share * (self.prices[right] - self.prices[left])) * _SAFE


def _is_above(a: tuple[int, float], b: tuple[int, float], c: tuple[int, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
