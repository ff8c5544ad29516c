"""What a run does next among all runs of this node: each plans around what the others mean to do.

What a plan that is in time has still to begin is promised to its run, in memory: the others plan around it. A run that
would be late or pay for that has all of them planned anew together, and then itself around what came of it. A promise
is lost with the process and made again when its run looks at the world next, within the hour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from elias.domain.corpus import Corpus
from elias.domain.plan import Plan, PlannedSegment, Relaxation
from elias.domain.run import Run, Segment
from elias.domain.spend import Room
from elias.errors import BackendError
from elias.ports.backend import Backend
from elias.ports.stores import CorpusStore
from elias.services.capping import limited_by, raised
from elias.services.foresee import Foresight
from elias.services.free_hours import FreeHours
from elias.services.next_move import time_left
from elias.services.plan import Ask, next_segment
from elias.services.planner.lanes import AS_LIKELY_AS_NOT
from elias.services.planner.outlook import Outlook, place_name, plan_ahead, queue_problem
from elias.services.planner.problem import Commitment
from elias.services.planner.queue import plan_queue
from elias.services.spend import Purse
from elias.units import Money

Planned = TypeVar("Planned", Plan, Plan | None)
TOGETHER_EVERY = timedelta(hours=6)
"""While the same runs are there; sooner once one has come or gone."""
TRIES = 40
"""To improve the plan of all: a run waits for it."""
HOPE = 0.2
"""The chance to be in time, below which a run leaves the hours of a quota to those that will come."""


@dataclass(kw_only=True)
class Planning:
    foresight: Foresight
    corpora: CorpusStore
    backends: Callable[[str], Mapping[str, Backend]]
    purse: Purse
    keeps_free_hours: bool = True
    """Those of a quota, from runs with money for runs without."""
    promised: dict[str, tuple[PlannedSegment, ...]] = field(default_factory=dict)
    """By run, of all that have planned and not ended; empty where nothing more is to begin, or where it is late."""
    together: tuple[frozenset[str], datetime] | None = None
    """Which runs were last planned together, and when."""
    refusals: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """By place that refuses for now: since when, and until when it first said it would."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    free_hours: FreeHours = field(init=False)

    def __post_init__(self) -> None:
        self.free_hours = FreeHours(foresight=self.foresight, corpora=self.corpora, purse=self.purse)

    def outlook(self, run: Run, segments: Sequence[Segment], corpus: Corpus, budget: Money | None) -> Outlook:
        """What the planner goes by. Raises BackendError."""
        found = self._look((run, segments, corpus), budget)
        return replace(found, commitments=(*found.commitments, *self._promises(run.id, found.now)))

    def plan(self, run: Run, segments: Sequence[Segment], corpus: Corpus, budget: Money | None) -> Plan:
        """From here, around all others; nothing is promised by it. Raises BackendError."""
        now = self.foresight.clock.now()
        spans = [s for s in (time_left(run.bounds, segments, now), run.bounds.segment) if s is not None]
        ask = Ask(label=run.label, now=now, span=min(spans, default=None), budget_left=budget)
        outlook = self.outlook(run, segments, corpus, budget)
        return self.modestly(outlook, lambda seen: next_segment(ask, seen))

    def modestly(self, outlook: Outlook, plan: Callable[[Outlook], Planned]) -> Planned:
        """Without the free hours that are kept for runs without a budget, where that is in time or all is in vain."""
        modest = self.free_hours.less(outlook) if self.keeps_free_hours else outlook
        if modest is outlook:
            return plan(outlook)
        modestly = plan(modest) if outlook.budget is not None else None
        if modestly is not None and modestly.is_in_time:
            return modestly
        found = plan(outlook)
        if found is None or found.is_in_time is not False or (found.chance or 0.0) >= HOPE:
            return found
        return plan(modest) if modestly is None else modestly

    def preview(self, run: Run) -> Plan:
        """What a run that has not begun would do first; changes nothing. Raises BackendError."""
        corpus = self.corpora.get(run.corpus)
        plan, capped = self.purse.choose(run, run.id, lambda budget: self.plan(run, (), corpus, budget))
        plan = replace(plan, run=None)  # there is none of that name
        return replace(plan, reason=capped.reason_beforehand, wait_until=capped.until) if capped else plan

    def look_ahead(self, run: Run) -> Plan:
        """The whole plan of a run that has not begun, with its reasons; changes nothing. Raises BackendError."""
        first, corpus = self.preview(run), self.corpora.get(run.corpus)
        plan = self.modestly(self.outlook(run, (), corpus, self.purse.left(run)), plan_ahead)
        if plan is None:
            return first
        caps = self.purse.of_node(run)
        helps = tuple(_within_caps(caps, run, plan))
        if not first.segments and first.wait_until is None and not plan.segments:
            return replace(first, relaxations=helps)
        return replace(plan, run=None, relaxations=helps, limited_by=tuple(limited_by(caps, plan)))

    def keep(self, run: Run, plan: Plan) -> None:
        """Promise what this plan has still to begin, in place of what was promised before."""
        waits = plan.wait_until is not None
        with self.lock:
            self.promised[run.id] = plan.segments[0 if waits else 1 :] if plan.is_in_time else ()

    def drop(self, run_id: str) -> None:
        """It has ended, or waits for somebody."""
        with self.lock:
            self.promised.pop(run_id, None)

    def make_room(self, run: Run, plan: Plan) -> bool:
        """Whether all were planned together, so that this run may have a better plan than this one."""
        if plan.is_in_time is None or (plan.is_in_time and not plan.costs_money):
            return False
        with self.lock:
            promised = dict(self.promised)
        names, now = frozenset({*promised, run.id}), self.foresight.clock.now()
        if not any(not segment.offer.is_paid for other in names - {run.id} for segment in promised[other]):
            return False
        if self.together and self.together[0] == names and now < self.together[1] + TOGETHER_EVERY:
            return False
        self.together = names, now
        promised[run.id] = plan.segments if plan.is_in_time else ()
        late = {name for name in names if not promised[name]}
        try:
            outlooks = list(self._outlooks(sorted(names), promised, late))
        except BackendError:  # the run itself says so, or goes where the others are
            return False
        if not outlooks:  # everybody was stopped meanwhile
            return False
        queue = plan_queue(queue_problem(outlooks, commitments=self.foresight.commitments()), TRIES)
        with self.lock:
            for found in queue.plans:
                if found.run in self.promised and found.run != run.id:
                    self.promised[found.run] = found.segments if found.is_in_time else ()
        return True

    def _look(self, past: tuple[Run, Sequence[Segment], Corpus], budget: Money | None) -> Outlook:
        found = self.foresight.outlook(past, self.backends(past[0].strategy), budget)
        with self.lock:
            return replace(found, doubts=dict(self._doubts(found)))

    def _doubts(self, found: Outlook) -> Iterator[tuple[str, datetime]]:
        """A place that refuses for longer than it said is believed to go on as long as it has (Lindy's law).

        Hours in which it is usually taken are no surprise: they do not count.
        """
        for sight in found.sights:
            name, until = place_name(sight.offer.backend, sight.offer.variant), sight.offer.passes_at
            if until is None:
                self.refusals.pop(name, None)
                continue
            since, said = self.refusals.setdefault(name, (found.now, until))
            habit = sight.offer.habit
            for _, ends in habit.usually_taken(since, found.now) if habit else ():
                since = ends
            if since < found.now and said <= found.now:
                yield name, found.now + (found.now - since)

    def _promises(self, run_id: str, now: datetime) -> Iterator[Commitment]:
        with self.lock:
            others = {run: segments for run, segments in self.promised.items() if run != run_id}
        for run, segments in others.items():
            for segment in segments:
                ends = segment.ends_at
                if ends is not None and ends > now:
                    starts, place = (
                        max(now, segment.starts_at),
                        place_name(segment.offer.backend, segment.offer.variant),
                    )
                    yield Commitment(place=place, starts_at=starts, span=ends - starts, run=run)

    def _outlooks(
        self, names: Sequence[str], promised: Mapping[str, tuple[PlannedSegment, ...]], late: Set[str]
    ) -> Iterator[Outlook]:
        """Of those that have something to begin, after what they train on now; of a late one less is asked."""
        for name in names:
            run, segments = self.foresight.runs.get(name), self.foresight.runs.segments(name)
            if run.state.is_standing:
                continue
            past = run, segments, self.corpora.get(run.corpus)
            found = self._look(past, self.purse.left(run))
            ready = self.foresight.busy_until(run)
            if ready is not None:
                rest = sum(segment.steps or 0 for segment in promised.get(name, ()))
                found = replace(found, ready=ready, rest=rest)
            if name in late:
                found = replace(found, wanted=AS_LIKELY_AS_NOT)
            if found.problem() is not None:
                yield found


def _within_caps(caps: Sequence[Room], run: Run, plan: Plan) -> Iterator[Relaxation]:
    """What would help, with what a person has to raise for it: the planner knows no more than what may be spent."""
    for helps in plan.relaxations:
        limits = () if helps.budget is None else raised(caps, run.bounds.budget, helps.budget)
        yield replace(helps, raised=limits)
