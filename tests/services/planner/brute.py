"""Every plan of one run there is, tried in turn: slow, and too simple to be wrong in the same way as the search."""

from __future__ import annotations

from datetime import timedelta

from elias.services.planner.calendar import Calendar
from elias.services.planner.lanes import Lane, make_lanes
from elias.services.planner.problem import Problem

Worth = tuple[int, int, int]
"""Expected micro-dollars, end in microseconds, segments."""


def cheapest(problem: Problem) -> Worth | None:
    """Of the problem's only run."""
    [ask] = problem.runs
    calendar = Calendar(problem)
    lanes, _ = make_lanes(problem, ask, calendar)
    deadline = problem.horizon if ask.deadline is None else min(problem.horizon, ask.deadline - problem.now)
    tried = _Trial(lanes, dict(calendar.left), deadline // timedelta(microseconds=1))
    tried.budget = ask.budget.micro_usd if ask.budget else 0
    tried.go(ask.steps, 0, 0, 0, 0, 0)
    return tried.best


class _Trial:
    def __init__(self, lanes: list[Lane], left: dict[tuple[str, int], int], deadline: int) -> None:
        self.lanes, self.left, self.deadline, self.budget = lanes, left, deadline, 0
        self.best: Worth | None = None

    def go(self, rest: int, time: int, expected: int, spent: int, slack: int, segments: int) -> None:
        if rest == 0:
            worth = (expected, time, segments)
            self.best = worth if self.best is None else min(self.best, worth)
            return
        for lane in self.lanes:
            for steps in range(1, min(rest, lane.most_steps) + 1):
                span, gone = lane.span(steps), spent + lane.spends(steps, slack)
                if spent + lane.reserve(steps) > self.budget or (lane.longest is not None and span > lane.longest):
                    continue
                for opening in lane.openings:
                    start = max(time + lane.delay + max(0, lane.slack - slack), opening.opens)
                    if start + span > min(opening.closes, self.deadline):
                        continue
                    if opening.period and self.left[opening.period] < span:
                        continue
                    if opening.period:
                        self.left[opening.period] -= span
                    self.go(
                        rest - steps,
                        start + span,
                        expected + lane.expected(steps),
                        gone,
                        max(slack, lane.slack),
                        segments + 1,
                    )
                    if opening.period:
                        self.left[opening.period] += span
