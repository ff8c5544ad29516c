"""What a queue can reach at best: a mixed-integer program over weeks, solved by HiGHS (Huangfu and Hall 2018).

A column is the time that a run spends on a place within a bucket of time. Segments, start-ups, windows' edges and the
order within a bucket are left out, so that every real plan is a solution and none is cheaper than the solver's bound.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elias.errors import MissingPackage
from elias.services.planner.bounds import Hull
from elias.services.planner.calendar import Calendar
from elias.services.planner.choice import likely_price, price, undominated
from elias.services.planner.lanes import HOUR, Lane
from elias.services.planner.task import Task

WEEK = 7 * 24 * HOUR
ANY = -1
"""Of what can be had at any time: only its sum over time counts."""
MOST_WHOLE = 60
"""Runs, above which one may be in time in part; the bound holds all the same."""
MOST_NODES = 50
"""Of the branch and bound; what is proven by then is the bound."""


_STDOUT = threading.Lock()
"""One thread at a time turns the process's stdout away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A run of the queue, with the places that it may take."""

    limited: Sequence[Lane]
    """With a quota, with hours, or free: what runs compete for."""
    rented: Sequence[Lane]
    """The corners of the hull of all others; any of those is no better than a mix of these."""
    floor: float
    """The least that a rented step spends, in micro-dollars."""
    steps: int
    deadline: int
    budget: int

    @classmethod
    def of(cls, task: Task) -> Wish:
        lanes = undominated(task.lanes)
        rented = [lane for lane in lanes if lane.hourly and len(lane.openings) == 1 and not lane.openings[0].period]
        corners = Hull([(lane.step, likely_price(lane)) for lane in rented])
        at = dict(zip(corners.times, corners.prices, strict=True))
        return cls(
            limited=[lane for lane in lanes if lane not in rented],
            rented=[lane for lane in rented if at.get(lane.step) == likely_price(lane)],
            floor=min((price(lane) for lane in rented), default=0.0),
            steps=task.steps,
            deadline=task.deadline,
            budget=task.budget,
        )

    @property
    def lanes(self) -> Sequence[Lane]:
        return [*self.limited, *self.rented]


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxed:
    most_in_time: int
    shares: Mapping[int, Mapping[tuple[str, int], float]]
    """Run -> quota period -> the time that it takes of it in the best solution."""
    payers: frozenset[int]
    """Runs that rent in the best solution: they leave what is free to those for whom renting costs more."""


@dataclass
class _Rows:
    """A sparse matrix, row by row."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    entries: list[dict[int, float]] = field(default_factory=list)

    def add(self, lower: float, upper: float, entries: Mapping[int, float]) -> None:
        self.lower.append(lower)
        self.upper.append(upper)
        self.entries.append(dict(entries))


@dataclass(frozen=True, slots=True)
class _Column:
    run: int
    lane: int
    bucket: int
    most: float
    """Hours."""


class Unsolved(Exception):
    """The solver did not do its work: nothing is proven."""


class Relaxation:
    """Hours and dollars, so that the numbers are of one size. Raises MissingPackage without HiGHS."""

    def __init__(self, wishes: Sequence[Wish], calendar: Calendar) -> None:
        self.solver = _highspy()
        self.wishes, self.calendar = wishes, calendar
        self.lanes = [wish.lanes for wish in wishes]
        self.edges = self._edges()
        self.columns = list(self._columns())
        self.rows = self._rows()

    def most_in_time(self) -> Relaxed:
        """The most runs, and how they share the quotas at the least cost of that."""
        bonus = 1 + sum(self._cost(column) * column.most for column in self.columns)
        bound, values = self._solve([-bonus] * len(self.wishes), frozenset())
        most = min(len(self.wishes), int(-bound / bonus + 1 + 1e-6)) if bound < 0 else 0
        return Relaxed(most_in_time=most, shares=self._shares(values), payers=self._payers(values))

    def least_cost(self, in_time: frozenset[int]) -> float:
        """Of any plan that has these runs in time, in micro-dollars."""
        bound, _ = self._solve([0.0] * len(self.wishes), in_time)
        return max(0.0, bound) * 1e6

    def _edges(self) -> list[int]:
        ends = {self.calendar.end, *self.calendar.ends.values(), *range(WEEK, self.calendar.end, WEEK)}
        return [0, *sorted(ends)]

    def _columns(self) -> Iterator[_Column]:
        for run, wish in enumerate(self.wishes):
            for number, lane in enumerate(self.lanes[run]):
                if number >= len(wish.limited):
                    yield _Column(run, number, ANY, wish.deadline / HOUR)
                    continue
                for bucket, (start, end) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
                    room = sum(max(0, min(o.closes, end, wish.deadline) - max(o.opens, start)) for o in lane.openings)
                    if room > 0:
                        yield _Column(run, number, bucket, room / HOUR)

    def _rows(self) -> _Rows:
        """Columns first, then one binary for each run: whether it is done in time."""
        rows, first = _Rows(), len(self.columns)
        work: dict[int, dict[int, float]] = defaultdict(dict)
        money: dict[int, dict[int, float]] = defaultdict(dict)
        own: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        quotas: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
        sessions: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
        for n, column in enumerate(self.columns):
            lane = self._lane(column)
            work[column.run][n] = HOUR / lane.step / self.wishes[column.run].steps
            money[column.run][n] = self._spent(column)
            own[column.run, ANY][n] = 1.0
            if column.bucket == ANY:
                continue
            own[column.run, column.bucket][n] = 1.0
            if period := self._period(column):
                quotas[period][n] = 1.0
            for key in self.calendar.session_keys(lane.place):
                sessions[key, column.bucket][n] = 1.0
        infinity = self.solver.kHighsInf
        for run, wish in enumerate(self.wishes):
            rows.add(0.0, infinity, {**work[run], first + run: -1.0})
            rows.add(-infinity, wish.budget / 1e6, money[run])
        for (run, bucket), entries in own.items():
            start, end = (0, self.calendar.end) if bucket == ANY else self.edges[bucket : bucket + 2]
            rows.add(-infinity, (min(end, self.wishes[run].deadline) - start) / HOUR, entries)
        for period, entries in quotas.items():
            rows.add(-infinity, self.calendar.left[period] / HOUR, entries)
        for (key, bucket), entries in sessions.items():
            length = (self.edges[bucket + 1] - self.edges[bucket]) / HOUR
            rows.add(-infinity, self.calendar.caps[key] * length, entries)
        return rows

    def _lane(self, column: _Column) -> Lane:
        return self.lanes[column.run][column.lane]

    def _period(self, column: _Column) -> tuple[str, int] | None:
        if column.bucket == ANY:
            return None
        start = self.edges[column.bucket]
        periods = self.calendar.periods[self._lane(column).place.key]
        return next((period for opens, closes, period in periods if opens <= start < closes), None)

    def _is_limited(self, column: _Column) -> bool:
        return column.lane < len(self.wishes[column.run].limited)

    def _spent(self, column: _Column) -> float:
        """Dollars of an hour, at least."""
        lane = self._lane(column)
        return (
            lane.spent_hourly if self._is_limited(column) else self.wishes[column.run].floor * HOUR / lane.step
        ) / 1e6

    def _cost(self, column: _Column) -> float:
        """Expected dollars of an hour by the cautious clock."""
        lane = self._lane(column)
        return lane.likely_hourly / 1e6 * lane.likely_step / lane.step

    def _solve(self, of_runs: Sequence[float], in_time: frozenset[int]) -> tuple[float, Any]:
        """The solver's bound and its best columns."""
        import numpy

        first, many = len(self.columns), len(self.wishes)
        rows = self.rows
        program = self.solver.HighsLp()
        program.num_col_, program.num_row_ = first + many, len(rows.entries)
        program.col_cost_ = numpy.array([*(self._cost(column) for column in self.columns), *of_runs])
        program.col_lower_ = numpy.array([*([0.0] * first), *(float(run in in_time) for run in range(many))])
        program.col_upper_ = numpy.array([*(column.most for column in self.columns), *([1.0] * many)])
        program.row_lower_, program.row_upper_ = numpy.array(rows.lower), numpy.array(rows.upper)
        matrix = program.a_matrix_
        matrix.format_ = self.solver.MatrixFormat.kRowwise
        matrix.start_ = numpy.cumsum([0, *(len(entries) for entries in rows.entries)], dtype=numpy.int32)
        matrix.index_ = numpy.array([n for entries in rows.entries for n in entries], dtype=numpy.int32)
        matrix.value_ = numpy.array([value for entries in rows.entries for value in entries.values()])
        kinds = self.solver.HighsVarType
        # many runs are not worth a branch and bound: the linear program's own bound is nearly as good
        kind = kinds.kInteger if many <= MOST_WHOLE else kinds.kContinuous
        program.integrality_ = [kinds.kContinuous] * first + [kind] * many
        return self._run(program)

    def _run(self, program: Any) -> tuple[float, Any]:
        highs = silent(self.solver)
        # threads and seed are fixed and nothing is limited by the clock: the same queue has the same answer
        for name, value in {
            "threads": 1,
            "random_seed": 0,
            "mip_max_nodes": MOST_NODES,
            "mip_rel_gap": 1e-4,
        }.items():
            highs.setOptionValue(name, value)
        highs.passModel(program)
        if highs.run() == self.solver.HighsStatus.kError:  # as where the process uses it with other threads
            raise Unsolved
        found = highs.getInfo()
        is_whole = any(kind == self.solver.HighsVarType.kInteger for kind in program.integrality_)
        bound = found.mip_dual_bound if is_whole else found.objective_function_value
        return bound, list(highs.getSolution().col_value)

    def _payers(self, values: Sequence[float]) -> frozenset[int]:
        pairs = zip(self.columns, values, strict=False)
        return frozenset(column.run for column, hours in pairs if hours > 1e-6 and self._cost(column) > 0)

    def _shares(self, values: Sequence[float]) -> dict[int, dict[tuple[str, int], float]]:
        shares: dict[int, dict[tuple[str, int], float]] = defaultdict(lambda: defaultdict(float))
        for column, hours in zip(self.columns, values, strict=False):
            if (period := self._period(column)) and hours > 1e-6:
                shares[column.run][period] += hours * HOUR
        return shares


def silent(highspy: Any) -> Any:
    """A solver that prints nothing: the library greets on the process's stdout when the first one is made."""
    with _STDOUT:
        sys.stdout.flush()
        stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        try:
            highs = highspy.Highs()
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
            os.close(nowhere)
    highs.setOptionValue("output_flag", False)
    return highs


def _highspy() -> Any:
    try:
        import highspy
    except ModuleNotFoundError as error:
        raise MissingPackage(
            "the bound of a queue's plan is proven by HiGHS, which is not installed",
            fix="pip install 'elias-node[planner]'",
            kept="the plan itself needs no solver",
        ) from error
    return highspy
