"""How sure a difference is: a paired bootstrap over examples; and how many of what comes by chance will come.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval);
Koehn, Statistical Significance Tests for Machine Translation Evaluation (2004), for pairing by example.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from elias.domain.verdict import Interval

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One example, measured twice over the same `weight`: nats over its tokens, tests passed over its tests."""

    candidate: float
    rival: float
    weight: float


def means(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Candidate's and rival's sum over the sum of weights: each token counts the same, whichever example it is in."""
    weight = math.fsum(pair.weight for pair in pairs)
    return math.fsum(pair.candidate for pair in pairs) / weight, math.fsum(pair.rival for pair in pairs) / weight


def examples_needed(level: float) -> int:
    """The fewest examples for which a percentile interval can hold at `level`.

    It never reaches beyond the smallest and the largest difference seen, and those enclose the median of n
    differences with probability 1 - 2^(1-n) at most: below this n no bootstrap keeps its promise.
    """
    return math.ceil(1 - math.log2(1 - level))


def paired_bootstrap(
    pairs: Sequence[Pair], level: float, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval | None:
    """Percentile interval of candidate minus rival, both weighted means; None for fewer than `examples_needed`.

    Examples are drawn with replacement, weight and both values together, so what is hard for both cancels out.
    The same pairs in the same order give the same interval.
    """
    if len(pairs) < examples_needed(level):
        return None
    # A complex number carries an example's difference and its weight, so one pass sums both.
    points = [complex(pair.candidate - pair.rival, pair.weight) for pair in pairs]
    draw = random.Random(seed).choices
    sums = [sum(draw(points, k=len(points))) for _ in range(resamples)]
    ordered = sorted(total.real / total.imag for total in sums)
    outside = round((1 - level) / 2 * resamples)
    return Interval(low=ordered[outside], high=ordered[resamples - 1 - outside], level=level)


def poisson_quantile(mean: float, probability: float) -> int:
    """The least number that is not exceeded with that probability below 1, where `mean` come on average."""
    count, term = 0, math.exp(-mean)
    reached = term
    while reached < probability and count < 10 * mean + 100:
        count += 1
        term *= mean / count
        reached += term
    return count
