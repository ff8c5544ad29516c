"""The chance that a plan's steps are done in time, never overstated."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import NormalDist

from elias.services.planner.lanes import Lane, is_risky, loss_s
from elias.services.planner.task import Found, Piece

_POINTS = 200
# all below one of them counts as it does, so that no chance is overstated
_QUANTILES = tuple((n + 1) / (_POINTS + 1) for n in range(_POINTS))
_DEVIATES = tuple(NormalDist().inv_cdf(share) for share in _QUANTILES)


def chance(found: Found, deadline: int | None = None) -> float:
    """Of all steps by `deadline`, or within the last span where it is None.

    All places err together, each segment ends with its span and hands on what it has left undone, the plan's last one
    may use what its place and the deadline leave; lost work is Poisson, each loss as long as the longest one.
    """
    pieces = [piece for piece in found.pieces if deadline is None or piece.start < deadline]
    if not pieces:
        return 0.0
    mean, lost = _losses(found, pieces)
    spares = _Spares(found, pieces, deadline)
    if mean == 0:
        # slower is never sooner: it is in time up to one of the quantiles, and not beyond
        return bisect_right(_DEVIATES, 0.0, key=lambda z: 0.0 if spares.at(z) >= 0 else 1.0) / (_POINTS + 1)
    return sum(_poisson_up_to(spares.at(z), lost, mean) for z in _DEVIATES) / (_POINTS + 1)


def chance_of(found: Found, piece: Piece) -> float:
    """Of this piece's steps within its span."""
    alone = Found(lanes=found.lanes, pieces=(piece,), bound=0)
    return chance(alone)


class _Spares:
    """The seconds that the last segment has to spare, where every step takes what it stays below at a quantile."""

    def __init__(self, found: Found, pieces: Sequence[Piece], deadline: int | None) -> None:
        self.steps = sum(piece.steps for piece in found.pieces)
        self.times = [_logarithms(found.lanes[piece.lane]) for piece in pieces]
        last = pieces[-1]
        ends = [piece.end if deadline is None else min(piece.end, deadline) for piece in pieces]
        self.spans = [(end - piece.start) / 1e6 for end, piece in zip(ends, pieces, strict=True)]
        if last is found.pieces[-1]:
            self.spans[-1] = _room(found.lanes[last.lane], last, deadline) / 1e6

    def at(self, z: float) -> float:
        left, spare = self.steps, math.inf
        for (start_up, start_sigma, step, sigma), span in zip(self.times, self.spans, strict=True):
            each = step * math.exp(sigma * z)
            spare = span - start_up * math.exp(start_sigma * z) - left * each
            left -= max(0, min(left, left + math.floor(spare / each)))
            if left <= 0:
                return max(spare, 0.0)
        return spare if left <= 0 else min(spare, -1.0)


def _room(lane: Lane, last: Piece, deadline: int | None) -> int:
    """The longest that the last segment may take; below zero where it begins after the deadline."""
    span = last.end - last.start
    if deadline is None:
        return span
    # more of a quota than was planned may not be there
    closes = last.end if last.period else next(o.closes for o in lane.openings if o.opens <= last.start < o.closes)
    room = closes - last.start if lane.longest is None else min(closes - last.start, lane.longest)
    return min(max(span, room), deadline - last.start)


def _logarithms(lane: Lane) -> tuple[float, float, float, float]:
    start_up, step = lane.pace.start_up, lane.pace.step
    return start_up.likely, start_up.sigma, step.likely, step.sigma


def _losses(found: Found, pieces: Sequence[Piece]) -> tuple[float, float]:
    """How many are to be expected, and the seconds of the longest."""
    mean, longest = 0.0, 1.0
    last = found.lanes[pieces[-1].lane]
    for piece in pieces:
        lane = found.lanes[piece.lane]
        if is_risky(lane.place):
            hours = (piece.end - piece.start) / 3.6e9
            mean += lane.place.offer.interruptions_per_hour * hours - math.log1p(-min(lane.place.failure_rate, 0.999))
            slower = max(1.0, last.step / lane.step)
            longest = max(longest, loss_s(lane.place, lane.pace, 0.95) * slower)
    return mean, longest


def _poisson_up_to(spare: float, lost: float, mean: float) -> float:
    """The probability that no more is lost than there is to spare."""
    if spare < 0:
        return 0.0
    term = total = math.exp(-mean)
    for n in range(1, int(spare // lost) + 1):
        term *= mean / n
        total += term
        if n > mean and term < 1e-12:
            break
    return min(1.0, total)
