"""The bootstrap against answers known beforehand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.statistics import Pair, examples_needed, means, paired_bootstrap, poisson_quantile


def test_means_weigh_each_token_the_same() -> None:
    pairs = [Pair(candidate=10, rival=20, weight=10), Pair(candidate=90, rival=60, weight=30)]
    assert means(pairs) == (2.5, 2.0)


def test_the_same_pairs_give_the_same_interval() -> None:
    pairs = _drawn(random.Random(3), 30, difference=-0.1)
    assert paired_bootstrap(pairs, 0.95) == paired_bootstrap(pairs, 0.95)


def test_another_seed_gives_nearly_the_same_interval() -> None:
    pairs = _drawn(random.Random(3), 200, difference=-0.1)
    one, other = paired_bootstrap(pairs, 0.95, seed=0), paired_bootstrap(pairs, 0.95, seed=1)
    assert one and other and one != other
    assert one.low == pytest.approx(other.low, abs=0.003) and one.high == pytest.approx(other.high, abs=0.003)


def test_a_contender_beside_itself_differs_by_exactly_nothing() -> None:
    pairs = [Pair(candidate=p.rival, rival=p.rival, weight=p.weight) for p in _drawn(random.Random(4), 20)]
    interval = paired_bootstrap(pairs, 0.95)
    assert interval is not None and (interval.low, interval.high) == (0, 0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """400 worlds of 60 examples; the true difference of the ratio is known. 95 % less what 60 examples cost."""
    dice, truth = random.Random(1), -0.05
    held = 0
    for _ in range(400):
        interval = paired_bootstrap(_drawn(dice, 60, difference=truth), 0.95, resamples=400)
        assert interval is not None
        held += interval.low <= truth <= interval.high
    assert 0.90 <= held / 400 <= 0.98


def test_it_agrees_with_the_normal_interval_where_that_is_right() -> None:
    """Equal weights and many examples: mean plus and minus 1.96 standard errors."""
    dice = random.Random(5)
    pairs = [Pair(candidate=dice.gauss(-0.2, 1), rival=0, weight=1) for _ in range(1000)]
    interval = paired_bootstrap(pairs, 0.95)
    mean = sum(p.candidate for p in pairs) / 1000
    error = (sum((p.candidate - mean) ** 2 for p in pairs) / 999) ** 0.5 / 1000**0.5
    assert interval is not None
    assert interval.low == pytest.approx(mean - 1.96 * error, abs=0.006)
    assert interval.high == pytest.approx(mean + 1.96 * error, abs=0.006)


@pytest.mark.parametrize(("level", "needed"), [(0.5, 2), (0.9, 5), (0.95, 6), (0.99, 8)])
def test_too_few_examples_have_no_interval(level: float, needed: int) -> None:
    assert examples_needed(level) == needed
    pairs = _drawn(random.Random(2), needed)
    assert paired_bootstrap(pairs[:-1], level) is None
    assert paired_bootstrap(pairs, level) is not None
    assert paired_bootstrap([], level) is None


@given(
    st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.integers(1, 500)), min_size=6, max_size=20),
    st.integers(0, 5),
)
def test_the_interval_lies_among_the_differences_seen(drawn: list[tuple[float, float, int]], seed: int) -> None:
    pairs = [Pair(candidate=c * w, rival=r * w, weight=w) for c, r, w in drawn]
    interval = paired_bootstrap(pairs, 0.95, seed=seed, resamples=50)
    assert interval is not None
    differences = [(p.candidate - p.rival) / p.weight for p in pairs]
    assert min(differences) - 1e-6 <= interval.low <= interval.high <= max(differences) + 1e-6


def _drawn(dice: random.Random, count: int, difference: float = 0.0) -> list[Pair]:
    """Examples of 20 to 200 tokens whose losses a token differ by `difference` on average."""
    pairs = []
    for _ in range(count):
        weight, hardness = dice.randint(20, 200), dice.gauss(1.5, 0.4)
        change = dice.gauss(difference, 0.15)
        pairs.append(Pair(candidate=(hardness + change) * weight, rival=hardness * weight, weight=weight))
    return pairs


@given(st.floats(0, 60), st.floats(0.01, 0.999))
def test_the_quantile_of_arrivals_is_the_least_that_is_enough(mean: float, probability: float):
    def reached(count: int) -> float:
        each = (math.exp(n * math.log(mean) - mean - math.lgamma(n + 1)) if mean else n == 0 for n in range(count + 1))
        return math.fsum(each)

    found = poisson_quantile(mean, probability)
    assert reached(found) >= probability - 1e-9
    assert found == 0 or reached(found - 1) < probability + 1e-9
