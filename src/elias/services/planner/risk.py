"""The chance that a plan's steps are done in time, never overstated."""

from __future__ import annotations

import math
from statistics import NormalDist

from elias.services.planner.lanes import Lane, is_risky, loss_s
from elias.services.planner.search import Found, Piece

_POINTS = 200
_QUANTILES = tuple((n + 1) / (_POINTS + 1) for n in range(_POINTS))
_DEVIATES = tuple(NormalDist().inv_cdf(share) for share in _QUANTILES)


def chance(found: Found, deadline: int | None = None) -> float:
    """Of all steps by `deadline`, or within the last span where it is None.

    All places err together, each segment ends with its span and hands on what it has left undone, the last one may use
    what its place and the deadline leave; lost work is Poisson, each loss as long as the longest one.
    """
    mean, lost = _losses(found)
    return sum(_at(found, z, deadline, mean, lost) for z in _DEVIATES) / _POINTS


def chance_of(found: Found, piece: Piece) -> float:
    """Of this piece's steps within its span."""
    alone = Found(lanes=found.lanes, pieces=(piece,), bound=0)
    return chance(alone)


def _at(found: Found, z: float, deadline: int | None, mean: float, lost: float) -> float:
    """Where every step takes what it stays below with the probability of `z`."""
    *earlier, last = found.pieces
    left = sum(piece.steps for piece in found.pieces)
    for piece in earlier:
        start_up, step = _seconds(found.lanes[piece.lane], z)
        left -= max(0, min(left, int(((piece.end - piece.start) / 1e6 - start_up) // step)))
    start_up, step = _seconds(found.lanes[last.lane], z)
    spare = _room(found.lanes[last.lane], last, deadline) / 1e6 - start_up - left * step
    if left <= 0:
        spare = math.inf
    if spare < 0:
        return 0.0
    return 1.0 if mean == 0 or spare == math.inf else _poisson_up_to(int(spare // lost), mean)


def _room(lane: Lane, last: Piece, deadline: int | None) -> int:
    """The longest that the last segment may take."""
    if deadline is None:
        return last.end - last.start
    closes = next((o.closes for o in lane.openings if o.opens <= last.start < o.closes), last.end)
    room = min(deadline, closes) - last.start
    if last.period is not None:
        room = min(room, last.end - last.start)
    return max(last.end - last.start, room if lane.longest is None else min(room, lane.longest))


def _seconds(lane: Lane, z: float) -> tuple[float, float]:
    start_up, step = lane.pace.start_up, lane.pace.step
    return start_up.likely * math.exp(start_up.sigma * z), step.likely * math.exp(step.sigma * z)


def _losses(found: Found) -> tuple[float, float]:
    """How many are to be expected, and the seconds of the longest."""
    mean, longest = 0.0, 1.0
    last = found.lanes[found.pieces[-1].lane]
    for piece in found.pieces:
        lane = found.lanes[piece.lane]
        if is_risky(lane.place):
            hours = (piece.end - piece.start) / 3.6e9
            mean += lane.place.offer.interruptions_per_hour * hours - math.log1p(-min(lane.place.failure_rate, 0.999))
            slower = max(1.0, last.step / lane.step)
            longest = max(longest, loss_s(lane.place, lane.pace, 0.95) * slower)
    return mean, longest


def _poisson_up_to(count: int, mean: float) -> float:
    term = total = math.exp(-mean)
    for n in range(1, count + 1):
        term *= mean / n
        total += term
        if n > mean and term < 1e-12:
            break
    return min(1.0, total)
