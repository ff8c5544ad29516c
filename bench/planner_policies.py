"""Simple ways to choose a place, beside the planner: each is a rule for the next segment, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from elias.domain.corpus import Corpus
from elias.domain.plan import Plan, PlannedSegment
from elias.domain.run import Run, Segment
from elias.services.next_move import time_left
from elias.services.planner.outlook import Outlook, Sight
from elias.services.planner.problem import SHORTEST
from elias.services.train import Coordinator
from elias.units import FREE, Money

ALL = ("local", "kaggle", "sagemaker")
LOOK_AGAIN = timedelta(hours=1)
MARGIN = 1.2
"""Over the pessimistic estimate: what a simple rule reserves."""


@dataclass(frozen=True, slots=True)
class Choice:
    sight: Sight
    span: timedelta
    """What it would reserve."""
    price: Money
    """An hour, as far as it is known now."""
    finish: timedelta
    """From now, if all goes as is likely."""
    holds_all: bool
    """Whether the span is enough for all that is left."""


Rule = Callable[[Choice], tuple[object, ...]]
"""The lowest is taken."""


def cheapest_hourly(choice: Choice) -> tuple[object, ...]:
    return choice.price, choice.sight.offer.backend, choice.sight.offer.variant


def earliest_finish(choice: Choice) -> tuple[object, ...]:
    return not choice.holds_all, choice.finish, choice.price


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    name: str
    allowed: Sequence[str] = ALL
    rule: Rule | None = None
    """None is the planner."""

    def coordinator(self) -> type[Coordinator]:
        rule = self.rule
        if rule is None:
            return Coordinator

        class ByRule(Coordinator):
            def _plan(self, run: Run, segments: Sequence[Segment], corpus: Corpus, budget: Money | None) -> Plan:
                return planned(rule, run, segments, self.planning.outlook(run, segments, corpus, budget))

        return ByRule


POLICIES = (
    Policy(name="ours"),
    Policy(name="cheapest hourly", rule=cheapest_hourly),
    Policy(name="greedy earliest finish", rule=earliest_finish),
    Policy(name="sagemaker only", allowed=("sagemaker",), rule=cheapest_hourly),
    Policy(name="kaggle only", allowed=("kaggle",), rule=cheapest_hourly),
)


def planned(rule: Rule, run: Run, segments: Sequence[Segment], outlook: Outlook) -> Plan:
    """One segment by the rule, or another look in an hour."""
    left = time_left(run.bounds, segments, outlook.now)
    choices = [choice for sight in outlook.sights if (choice := _choice(sight, outlook, left)) is not None]
    if not choices:
        is_over = run.bounds.by is not None and run.bounds.by <= outlook.now
        again = None if is_over else outlook.now + LOOK_AGAIN
        return Plan(segments=(), wait_until=again, reason="no place is open to it")
    best = min(choices, key=rule)
    offer = best.sight.offer
    reserve = offer.hourly.for_hours(best.span) + offer.once if offer.is_paid else FREE
    return Plan(
        segments=(
            PlannedSegment(offer=offer, starts_at=outlook.now + offer.start_delay, span=best.span, reserve=reserve),
        )
    )


def _choice(sight: Sight, outlook: Outlook, left: timedelta | None) -> Choice | None:
    offer, told = sight.offer, sight.forecast
    is_over = left is not None and left <= timedelta(0)
    if is_over or offer.refused or told.remaining is None or (offer.is_paid and outlook.budget is None):
        return None
    likely = timedelta(seconds=told.remaining.likely + told.overheads.start_up.likely)
    wanted = max(timedelta(seconds=(told.remaining.high + told.overheads.start_up.high) * MARGIN), offer.shortest)
    spans = [span for span in (wanted, offer.longest, offer.left, left) if span is not None]
    if offer.is_paid and outlook.budget is not None:
        money = max(0, (outlook.budget - offer.once).micro_usd)
        spans.append(timedelta(seconds=money * 3600 // offer.hourly.micro_usd))
    span = min(spans)
    if span < max(min(SHORTEST, left or SHORTEST), offer.shortest):
        return None
    return Choice(
        sight=sight,
        span=span,
        price=offer.hourly if offer.likely_hourly is None else offer.likely_hourly,
        finish=offer.start_delay + likely,
        holds_all=span >= likely,
    )
