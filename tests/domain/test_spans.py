"""Spans of time without what is taken of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from elias.domain.spans import without

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda pair: (pair[0], sum(pair))), max_size=5)


@given(SPANS, SPANS.map(sorted))
def test_what_is_left_is_what_no_taken_span_holds(spans: list[tuple[int, int]], taken: list[tuple[int, int]]):
    found = list(without(spans, taken))
    assert all(opens < closes for opens, closes in found)
    held = {n for begins, ends in taken for n in range(begins, ends)}
    left = sorted(n for opens, closes in found for n in range(opens, closes))
    assert left == sorted(n for opens, closes in spans for n in range(opens, closes) if n not in held)


def test_nothing_touches_what_is_taken():
    assert list(without([(0, 10), (20, 30)], [(2, 4), (4, 6), (25, 40)])) == [(0, 2), (6, 10), (20, 25)]
