"""What the planner's own queue makes of a world when it is told everything at its beginning: a plan, not a bound.

It knows which runs will come, when inference will have this machine, and every true speed; nothing dies, spot has its
average price, and Kaggle's week its least hours. Unlike the bound, it keeps start-ups, sessions, order and reserves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from planner_bound import lanes_of, true_speed_of
from planner_world import Simulation

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.spans import without
from elias.domain.speed import Estimate
from elias.services.planner.problem import Pace, Place, Problem, RunAsk, Window
from elias.services.planner.queue import plan_queue
from elias.testing.places.kinds import LikeKaggle, LikeThisMachine
from elias.testing.places.world import HOUR, START, WEEK
from elias.units import FREE, Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreknown:
    in_time: tuple[int, ...]
    """Numbers of runs."""
    dollars: float
    """Expected, for these."""


def foreknown(simulation: Simulation) -> Foreknown:
    places = tuple(_places(simulation))
    horizon = (simulation.world.weeks + 2) * WEEK
    runs = tuple(_asks(simulation, places))
    plans = plan_queue(Problem(now=START, places=places, runs=runs, horizon=horizon)).plans
    numbers = {spec.id: spec.number for spec in simulation.specs}
    kept = [plan for plan in plans if plan.is_in_time]
    found = tuple(sorted(numbers[plan.run or ""] for plan in kept))
    return Foreknown(in_time=found, dollars=sum(plan.expected.micro_usd for plan in kept) / 1e6)


def _places(simulation: Simulation) -> Iterator[Place]:
    for lane in lanes_of(simulation):
        place, offer = simulation.places[lane.backend], _without_accidents(simulation, lane.offer)
        refill = place.least if isinstance(place, LikeKaggle) else None
        windows = tuple(_free(simulation)) if isinstance(place, LikeThisMachine) else ()
        sessions = lane.name if offer.variant else None
        yield Place(offer=offer, name=lane.name, windows=windows, refill=refill, sessions=sessions)


def _without_accidents(simulation: Simulation, offer: Offer) -> Offer:
    likely = None
    if offer.variant.endswith(" spot"):
        name, hours = offer.variant.removesuffix(" spot"), simulation.world.weeks * WEEK // HOUR
        share = fmean(simulation.world.share(name, START + n * HOUR) for n in range(hours))
        likely = Money(round(offer.hourly.micro_usd * share))
    return replace(offer, likely_hourly=likely, interruptions_per_hour=0.0, habit=None)


def _free(simulation: Simulation) -> Iterator[Window]:
    held = sorted((spell.begins, spell.ends) for spell in simulation.world.inference())
    for opens, closes in without([(START, simulation.world.end)], held):
        yield Window(opens=opens, closes=closes)


def _asks(simulation: Simulation, places: tuple[Place, ...]) -> Iterator[RunAsk]:
    for spec in simulation.specs:
        paces = {}
        for place in places:
            true = true_speed_of(simulation, spec, place.offer)
            paces[place.key] = Pace(step=Estimate.around(true.step_s, 1.0), start_up=Estimate.around(true.load_s, 1.0))
        yield RunAsk(
            run=spec.id,
            label=Label.PUBLIC,
            steps=spec.steps,
            paces=paces if spec.budget is not None else _free_of_charge(paces, places),
            deadline=spec.deadline,
            wanted=0.5,
            budget=spec.budget,
            ready=spec.arrives,
        )


def _free_of_charge(paces: dict[str, Pace], places: tuple[Place, ...]) -> dict[str, Pace]:
    return {place.key: paces[place.key] for place in places if place.offer.hourly == FREE}
