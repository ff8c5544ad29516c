"""A run to be placed, and what was found for it: the search's own nouns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from elias.services.planner.lanes import Lane

MOST_PARTIALS = 160
"""Partial plans that a search looks at, unless it is told otherwise."""


class Aim(Enum):
    """What comes first; what is left out comes after it."""

    CHEAPEST = "least expected money, then the earliest end"
    SOONEST = "the earliest end, then the least expected money"
    THRIFTIEST = "the least spent money, then the earliest end"

    def order(self, expected: float, spends: float, end: int, segments: int) -> tuple[float, float, int]:
        """The lowest is the best."""
        match self:
            case Aim.CHEAPEST:
                return expected, end, segments
            case Aim.SOONEST:
                return end, expected, segments
            case Aim.THRIFTIEST:
                return spends, end, segments


class Piece(NamedTuple):
    lane: int
    start: int
    end: int
    steps: int
    period: tuple[str, int] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A run to be placed, in microseconds from now and micro-dollars."""

    lanes: Sequence[Lane]
    steps: int
    deadline: int
    budget: int
    """What is left of it by what was spent before holds all that each segment reserves."""
    left: Mapping[tuple[str, int], int]
    """Of each quota period."""
    ends: Mapping[tuple[str, int], int]
    aim: Aim = Aim.CHEAPEST
    effort: int = MOST_PARTIALS
    """Partial plans looked at before the best so far is taken, with the bound that is proven by then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    lanes: Sequence[Lane]
    pieces: tuple[Piece, ...]
    bound: int
    """Of what the aim puts first: no plan of this kind is below."""
    is_proven: bool = True

    @property
    def expected(self) -> int:
        return sum(self.lanes[p.lane].expected(p.steps) for p in self.pieces)

    @property
    def reserved(self) -> int:
        return sum(self.lanes[p.lane].reserve(p.steps) for p in self.pieces)

    @property
    def spends(self) -> int:
        return sum(gone for _, gone in self._money())

    @property
    def needs(self) -> int:
        """The least budget that holds it: what a segment reserves, on top of what was spent before it."""
        before, most = 0, 0
        for reserved, gone in self._money():
            before, most = before + gone, max(most, before + reserved, before + gone)
        return most

    def _money(self) -> Iterator[tuple[int, int]]:
        """What each piece reserves, and what is gone after it."""
        slack = 0
        for piece in self.pieces:
            lane = self.lanes[piece.lane]
            yield lane.reserve(piece.steps), lane.spends(piece.steps, slack)
            slack = max(slack, lane.slack)

    @property
    def end(self) -> int:
        return self.pieces[-1].end

    def worth(self, aim: Aim) -> tuple[float, float, int]:
        return aim.order(self.expected, self.spends, self.end, len(self.pieces))
