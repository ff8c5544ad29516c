"""The exact search for one run: best first over partial plans, with a bound that is never too high.

A partial plan is worth its steps done, its end, its expected and its spent money, its segments and the quota it has
used. One that is no better than another in any of these is dropped, whatever follows: nothing else decides what can
follow. The first whole plan taken from the queue is the best one, as every other's bound is no lower.

A segment may end where its place's limits end it, where the run ends, where another place opens, where another place
can just do the rest in time or for the money, or at one of `COARSE` equal shares of the work. With no more steps than
`GRAIN` it may end anywhere: that is every plan there is.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from elias.services.planner.bounds import Hull
from elias.services.planner.choice import fixed, least, likely_price, price, promising, undominated
from elias.services.planner.lanes import HOUR, Lane
from elias.services.planner.task import MOST_PARTIALS, Found, Piece, Task

GRAIN = 24
COARSE = 4
LONGER = 4
"""Times its effort a search among many places goes on that has found nothing close to its bound by then."""
HANDOVERS = 100
"""Into how many parts a run is worth being cut."""
CLOSE = 1.02
"""Times the bound."""


class Partial(NamedTuple):
    steps: int
    time: int
    expected: int
    spends: int
    used: tuple[tuple[tuple[str, int], int], ...]
    """Of each quota period that is not over."""
    slack: int
    """Set aside for lost work by now."""
    path: tuple[int, ...]
    """Lanes, in order."""
    before: Partial | None
    piece: Piece | None


def search(task: Task) -> Found | None:
    """The best plan, or None where none keeps deadline and budget.

    A place that could do less than a hundredth of the work by then is not worth a hand-over, but where nothing else is.
    """
    every = undominated(task.lanes)
    useful = [lane for lane in every if lane.steps_within(task.deadline - lane.delay) * HANDOVERS >= task.steps]
    found = _among(task, useful) or (_among(task, every) if len(useful) < len(every) else None)
    if found is None or (found.is_proven and task.steps <= GRAIN and len(found.lanes) == len(every)):
        return found
    return replace(found, bound=min(least(task, every), int(found.worth(task.aim)[0])), is_proven=False)


def _among(task: Task, every: list[Lane]) -> Found | None:
    found: Found | None = None
    for number, lanes in enumerate(promising(task, every) if every else ()):
        goes_on = number == 0 and len(lanes) < len(every) and task.effort >= MOST_PARTIALS
        one = _Search(task, lanes, task.effort * (LONGER if goes_on else 1))
        tried = one.run()
        if tried is not None and (found is None or tried.worth(task.aim) < found.worth(task.aim)):
            found = tried
        if not one.was_cut or task.effort < MOST_PARTIALS:  # where it has to be quick nothing is looked at twice
            break
    return found


def alone(task: Task, lane: Lane) -> Found | None:
    """Nothing but this place, as early as it can."""
    only = _Search(task, [lane], task.effort)
    partial = Partial(0, 0, 0, 0, (), 0, (), None, None)
    while partial.steps < task.steps:
        largest = max(only.pieces(partial, 0), key=lambda piece: piece.steps, default=None)
        if largest is None or len(partial.path) > MOST_PARTIALS:
            return None
        partial = only.after(partial, largest)
    return only.found(partial, 0, is_proven=False)


@dataclass
class _Search:
    task: Task
    lanes: list[Lane]
    patience: int
    """Partial plans looked at, where after the task's effort nothing close to the bound was found."""
    settled: list[Partial] = field(default_factory=list)
    heap: list[tuple[tuple[float, float, int, tuple[int, ...]], int, Partial, int | None]] = field(default_factory=list)
    best: tuple[float, float, int, tuple[int, ...]] | None = None
    was_cut: bool = False
    """Whether there was more to look at."""
    serial: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        task = self.task
        shares = task.steps if task.steps <= GRAIN else COARSE
        self.grid = sorted({-(-task.steps * k // shares) for k in range(1, shares + 1)})
        self.expected = Hull([(lane.step, likely_price(lane)) for lane in self.lanes])
        self.spends = Hull([(lane.step, price(lane)) for lane in self.lanes])
        self.fastest = min(lane.step for lane in self.lanes)
        self.fixed = [fixed(lane) for lane in self.lanes]
        self.prices = [price(lane) for lane in self.lanes]
        self.dearest = max(lane.spent_hourly for lane in self.lanes) + 1
        self.opens = [[opening.opens for opening in lane.openings] for lane in self.lanes]
        self.closes = [[opening.closes for opening in lane.openings] for lane in self.lanes]

    def run(self) -> Found | None:
        self.push(Partial(0, 0, 0, 0, (), 0, (), None, None))
        effort = self.task.effort
        while self.heap:
            key, _, partial, lane = heapq.heappop(self.heap)
            if lane is not None:
                self.extend(partial, lane)
                continue
            if partial.steps == self.task.steps:
                return self.found(partial, key[0], is_proven=True)
            if len(self.settled) >= effort:
                whole = self.newest_whole() or self.dive()
                if effort >= self.patience or self.is_close(whole, key[0]):
                    self.was_cut = True
                    return self.found(whole, key[0], is_proven=False) if whole else None
                effort = self.patience
                if whole:
                    self.push(whole)
            if self.is_dominated(partial):
                continue
            self.settled.append(partial)
            for index in range(len(self.lanes)):
                self.push(partial, index)
        return None

    def is_close(self, whole: Partial | None, bound: float) -> bool:
        key = None if whole is None else self.key(whole, None)
        return key is not None and key[0] <= bound * CLOSE

    def push(self, partial: Partial, lane: int | None = None) -> None:
        """With the lowest key that any whole plan from here can have; not at all where there can be none."""
        key = self.key(partial, lane)
        if key is None or (self.best is not None and key > self.best):
            return
        if partial.steps == self.task.steps:
            self.best = key
        heapq.heappush(self.heap, (key, next(self.serial), partial, lane))

    def key(self, partial: Partial, lane: int | None) -> tuple[float, float, int, tuple[int, ...]] | None:
        rest, time, path = self.task.steps - partial.steps, partial.time, partial.path
        if rest == 0:
            return *self.task.aim.order(partial.expected, partial.spends, time, len(path)), path
        likely_fixed, fixed = 0.0, 0.0
        if lane is not None:
            one = self.lanes[lane]
            likely_fixed, fixed = self.fixed[lane]
            time += self.wait(partial, one) + one.overhead
            path = (*path, lane)
        expected = self.expected.least(rest, self.task.deadline - time)
        spends = self.spends.least(rest, self.task.deadline - time)
        if expected is None or spends is None or partial.spends + fixed + spends > self.task.budget:
            return None
        expected = partial.expected + math.floor(likely_fixed + expected)
        spends = partial.spends + math.floor(fixed + spends)
        end = time + rest * self.fastest
        return *self.task.aim.order(expected, spends, end, len(partial.path) + 1), path

    def extend(self, partial: Partial, lane: int) -> None:
        for piece in self.pieces(partial, lane):
            child = self.after(partial, piece)
            if not self.is_dominated(child):
                self.push(child)

    def pieces(self, partial: Partial, index: int) -> Iterator[Piece]:
        """Each number of steps in the earliest opening that takes it: a later one leaves nothing more."""
        lane, used = self.lanes[index], dict(partial.used)
        most, covered = self.most(partial, lane), 0
        ready = partial.time + self.wait(partial, lane)
        for opening in lane.openings[bisect_right(self.closes[index], ready) :]:
            start = max(ready, opening.opens)
            if start >= self.task.deadline:
                return
            room = min(opening.closes, self.task.deadline) - start
            if opening.period:
                room = min(room, self.task.left[opening.period] - used.get(opening.period, 0))
            fits = min(most, lane.steps_within(room))
            if fits <= covered:
                continue
            for steps in self.sizes(partial, index, start, fits):
                if steps > covered:
                    yield Piece(index, start, start + lane.span(steps), steps, opening.period)
            covered = fits
            if covered >= most:
                return

    def wait(self, partial: Partial, lane: Lane) -> int:
        """Before a session there begins."""
        return lane.delay + max(0, lane.slack - partial.slack)

    def most(self, partial: Partial, lane: Lane) -> int:
        most = min(self.task.steps - partial.steps, lane.most_steps)
        spans = (lane.longest, lane.span_for(self.task.budget - partial.spends))
        return min([most, *(lane.steps_within(span) for span in spans if span is not None)])

    def sizes(self, partial: Partial, index: int, start: int, fits: int) -> list[int]:
        if fits < 1:
            return []
        done = partial.steps
        first, last = bisect_right(self.grid, done), bisect_right(self.grid, done + fits)
        found = {fits, *(share - done for share in self.grid[first:last])}
        if self.task.steps > GRAIN:
            found |= {size for size in self.handovers(partial, index, start) if 1 <= size <= fits}
        return sorted(found)

    def handovers(self, partial: Partial, index: int, start: int) -> Iterator[int]:
        """Where another lane opens, or can just do the rest in time, or just for the money."""
        lane, rest, own = self.lanes[index], self.task.steps - partial.steps, self.prices[index]
        over = partial.spends + self.fixed[index][1] - self.task.budget
        time = self.task.deadline - start - lane.overhead
        for number, other in enumerate(self.lanes):
            if number == index:
                continue
            opens = self.opens[number]
            if opens[-1] > start + other.delay:
                nearest = opens[bisect_right(opens, start + other.delay)]
                yield (nearest - other.delay - start - lane.overhead) // lane.step
            if other.step < lane.step:
                yield (time - other.delay - other.overhead - rest * other.step) // (lane.step - other.step)
            saved = self.prices[number] - own
            if saved > 0 and over + self.fixed[number][1] + rest * self.prices[number] > 0:
                size = math.ceil((over + self.fixed[number][1] + rest * self.prices[number]) / saved)
                yield from (size, size + 1)

    def after(self, partial: Partial, piece: Piece) -> Partial:
        lane, used = self.lanes[piece.lane], partial.used
        if piece.period or used:
            now = dict(used)
            if piece.period:
                now[piece.period] = now.get(piece.period, 0) + piece.end - piece.start
            used = tuple(sorted((p, u) for p, u in now.items() if self.task.ends[p] > piece.end))
        return Partial(
            partial.steps + piece.steps,
            piece.end,
            partial.expected + lane.expected(piece.steps),
            partial.spends + lane.spends(piece.steps, partial.slack),
            used,
            max(partial.slack, lane.slack),
            (*partial.path, piece.lane),
            partial,
            piece,
        )

    def is_dominated(self, partial: Partial) -> bool:
        """Whether another has done as much, by then, for no more money and quota, in no more segments."""
        steps, time, expected, spends, used, slack, path, _, _ = partial
        segments, mine, ends = len(path), dict(used), self.task.ends
        for done, at, spent, gone, taken, kept, way, _, _ in self.settled:
            if (
                done >= steps
                and at <= time
                and spent <= expected
                and gone <= spends
                and len(way) <= segments
                # what it may have to set aside yet
                and (
                    kept >= slack
                    or (at + slack - kept <= time and gone + (slack - kept) * self.dearest // HOUR <= spends)
                )
                # what was used of a period that is over by then matters no more
                and (not taken or not any(many > mine.get(period, 0) and ends[period] > time for period, many in taken))
            ):
                return True
        return False

    def newest_whole(self) -> Partial | None:
        whole = [
            (key, partial) for key, _, partial, lane in self.heap if lane is None and partial.steps == self.task.steps
        ]
        return min(whole, key=lambda pair: pair[0])[1] if whole else None

    def dive(self) -> Partial | None:
        """Depth first from the most advanced partial plans: some whole plan, when there is no time for the best."""
        stack = sorted(self.settled, key=lambda partial: (partial.steps, -partial.time))
        for _ in range(self.task.effort):
            if not stack:
                return None
            partial = stack.pop()
            if partial.steps == self.task.steps:
                return partial
            children = [self.after(partial, p) for lane in range(len(self.lanes)) for p in self.pieces(partial, lane)]
            keyed = [(key, child) for child in children if (key := self.key(child, None)) is not None]
            stack += [child for _, child in sorted(keyed, key=lambda pair: pair[0], reverse=True)]
        return None

    def found(self, partial: Partial, bound: float, *, is_proven: bool) -> Found:
        pieces: list[Piece] = []
        at: Partial | None = partial
        while at is not None and at.piece is not None:
            pieces.append(at.piece)
            at = at.before
        return Found(lanes=self.lanes, pieces=tuple(reversed(pieces)), bound=int(bound), is_proven=is_proven)
