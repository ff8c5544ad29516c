"""What somebody who knew the future could do at best: two programs over the seeded world, solved by HiGHS.

Both are relaxations, so both are bounds and no plans: a run may be split at will over places within three-hour slots
of time, starts and moves cost nothing, machines die for nobody, and a rented hour costs the lowest price at which a
session of that run could have begun by then. What binds: a run is at one place at a time, only between its arrival and
its deadline; machines and sessions at once; Kaggle's true hours of each week, of which a session that began before
midnight may take some along into the next, but no hour twice; inference's hours here; the true speeds; a run's own
budget; and, as far as the branch and bound comes, that a run is in time whole or not at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import highspy
import numpy as np
from planner_draw import RECIPE, RunSpec
from planner_world import Simulation

from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.testing.places.kinds import LikeKaggle, LikeThisMachine
from elias.testing.places.place import TrueSpeed
from elias.testing.places.world import HOUR, START, WEEK
from elias_trainer.contract import BaseModel, Digest, Input, Job, Limits, Recipe, digest_bytes

SLOT = 3 * HOUR
MOST_NODES = 200
"""Of the branch and bound over which runs are in time; what is proven by then is the bound."""
LONGEST_RENTED = 5 * 24
"""Hours that a session keeps the price of its beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """One kind of machine."""

    name: str
    offer: Offer
    at_once: int
    backend: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    in_time: float
    """No policy has more runs in time."""
    least: dict[str, float]
    """Dollars, at least, to have all of a named set of runs in time."""


@dataclass(frozen=True, slots=True)
class _Column:
    run: int
    lane: int
    slot: int
    hours: float
    """At the most."""
    dollars: float
    """An hour."""
    share: float
    """Of the run, done in an hour."""


def clairvoyant(simulation: Simulation, sets: dict[str, Sequence[int]]) -> Bound:
    """`sets` are numbers of runs by name. Raises RuntimeError where a set that was done is found impossible."""
    columns = _columns(simulation)
    everything = range(len(simulation.specs))
    most = _solve(simulation, columns, everything, maximize=True)
    least = {name: _solve(simulation, columns, numbers, maximize=False) for name, numbers in sets.items()}
    return Bound(in_time=most, least=least)


def least_dollars(simulation: Simulation, numbers: Sequence[int]) -> float:
    """To have just these in time. Raises RuntimeError where that is impossible."""
    return _solve(simulation, _columns(simulation), numbers, maximize=False)


def _columns(simulation: Simulation) -> Sequence[_Column]:
    found: list[_Column] = []
    for number, spec in enumerate(simulation.specs):
        for index, lane in enumerate(lanes_of(simulation)):
            if spec.budget is None and lane.offer.hourly.micro_usd:
                continue
            share = 1 / _whole_hours(simulation, spec, lane)
            for slot in range((spec.arrives - START) // SLOT, (spec.deadline - START) // SLOT + 1):
                begins, ends = max(spec.arrives, START + slot * SLOT), min(spec.deadline, START + (slot + 1) * SLOT)
                if ends > begins:
                    price = _price(simulation, lane, spec.arrives, ends)
                    found.append(_Column(number, index, slot, (ends - begins) / HOUR, price, share))
    return found


def lanes_of(simulation: Simulation) -> Sequence[Lane]:
    found: list[Lane] = []
    need = Need(base=BaseModel(reference=simulation.run_of(simulation.specs[0]).base.reference), recipe=RECIPE,
                label=Label.PUBLIC, corpus_bytes=1000)  # fmt: skip
    for name in simulation.allowed:
        place = simulation.places[name]
        for offer in place.now_offers(need):
            at_once = 1 if isinstance(place, LikeThisMachine) else offer.concurrency
            found.append(Lane(name=f"{name} {offer.variant}".strip(), offer=offer, at_once=at_once, backend=name))
    return found


def _whole_hours(simulation: Simulation, spec: RunSpec, lane: Lane) -> float:
    """All of it there, without a start-up: no segment's is quicker than the quickest that is drawn, none is counted."""
    return true_speed_of(simulation, spec, lane.offer).step_s * spec.steps / 3600


def true_speed_of(simulation: Simulation, spec: RunSpec, offer: Offer) -> TrueSpeed:
    digest = Digest(digest_bytes(b""))
    fields = {name: getattr(RECIPE, name) for name in RECIPE.__dataclass_fields__} | {"max_steps": spec.steps}
    job = Job(run=spec.id, segment=spec.id, base=BaseModel(reference="none"), recipe=Recipe(**fields),
              corpus=Input(path="corpus.jsonl", digest=digest), limits=Limits())  # fmt: skip
    return simulation.places[offer.backend].truth(job, offer)


def _price(simulation: Simulation, lane: Lane, arrives: datetime, ends: datetime) -> float:
    """The lowest of any session of the run that may still go on: each keeps the price of its beginning."""
    hourly = lane.offer.hourly.micro_usd / 1e6
    if not lane.offer.variant.endswith(" spot"):
        return hourly
    hours = min(LONGEST_RENTED, int((ends - arrives) / HOUR)) + 2
    name = lane.offer.variant.removesuffix(" spot")
    return hourly * min(simulation.world.share(name, ends - n * HOUR) for n in range(hours))


def _solve(simulation: Simulation, every: Sequence[_Column], numbers: Sequence[int], *, maximize: bool) -> float:
    wanted = set(numbers)
    columns = [column for column in every if column.run in wanted]
    if not wanted:
        return 0.0
    shares = sorted(wanted) if maximize else []
    model = highspy.Highs()
    model.setOptionValue("log_to_console", False)
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)  # as the planner in this process: HiGHS refuses to work with two numbers
    infinity = highspy.kHighsInf
    cost = [0.0 if maximize else c.dollars for c in columns] + [-1.0] * len(shares)
    for value, upper in zip(cost, [c.hours for c in columns] + [1.0] * len(shares), strict=True):
        model.addVar(0.0, upper)
        model.changeColCost(model.getNumCol() - 1, value)
    in_share = {number: len(columns) + n for n, number in enumerate(shares)}
    for index in in_share.values():
        model.changeColIntegrality(index, highspy.HighsVarType.kInteger)
    carried: dict[int, int] = {}
    for week in range(simulation.world.weeks + 2):
        kaggle = _kaggle(simulation)
        model.addVar(0.0, kaggle.sessions_at_once * (kaggle.session_limit / HOUR))
        carried[week] = model.getNumCol() - 1
    for terms, low, high in _rows(simulation, columns, sorted(wanted), in_share, carried):
        index = np.array([i for i, _ in terms], dtype=np.int32)
        values = np.array([v for _, v in terms], dtype=np.float64)
        model.addRow(-infinity if low is None else low, infinity if high is None else high, len(terms), index, values)
    model.setOptionValue("mip_max_nodes", MOST_NODES)
    model.run()
    told, info = model.getModelStatus(), model.getInfo()
    if told not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kSolutionLimit):
        raise RuntimeError(f"seed {simulation.world.seed}: the bound has no solution: {told}")
    return -float(info.mip_dual_bound) if maximize else float(info.objective_function_value)


Row = tuple[list[tuple[int, float]], float | None, float | None]


def _rows(
    simulation: Simulation,
    columns: Sequence[_Column],
    numbers: Sequence[int],
    in_share: dict[int, int],
    carried: dict[int, int],
) -> list[Row]:
    """`carried`: the column of the hours that sessions take along out of each week."""
    lanes = lanes_of(simulation)
    work, money = defaultdict(list), defaultdict(list)
    one_place, machines = defaultdict(list), defaultdict(list)
    weekly, early = defaultdict(list), defaultdict(list)
    for index, column in enumerate(columns):
        work[column.run].append((index, column.share))
        money[column.run].append((index, column.dollars))
        one_place[column.run, column.slot].append((index, 1.0))
        machines[column.lane, column.slot].append((index, 1.0))
        if isinstance(simulation.places[lanes[column.lane].backend], LikeKaggle):
            weekly[(column.slot * SLOT) // WEEK].append((index, 1.0))
            if (column.slot * SLOT) % WEEK < 12 * HOUR:
                early[(column.slot * SLOT) // WEEK].append((index, 1.0))
    found: list[Row] = []
    for number in numbers:
        terms = list(work[number])
        if number in in_share:
            found.append(([*terms, (in_share[number], -1.0)], 0.0, None))
        else:
            found.append((terms, 1.0, None))
        budget = simulation.specs[number].budget
        if budget is not None:
            found.append((money[number], None, budget.micro_usd / 1e6))
    for (number, slot), terms in one_place.items():
        found.append((terms, None, _length(simulation.specs[number], slot)))
    for (lane, slot), terms in machines.items():
        found.append((terms, None, lanes[lane].at_once * _open_hours(simulation, lanes[lane], slot)))
    for week, out in carried.items():
        into = [(carried[week - 1], -1.0)] if week else []
        found.append(([*weekly[week], *into, (out, 1.0)], None, _week_hours(simulation, week)))
        # what is taken along is used up within the next week's first half day
        found.append(([*early[week], *into], 0.0, None))
    return found


def _length(spec: RunSpec, slot: int) -> float:
    begins, ends = max(spec.arrives, START + slot * SLOT), min(spec.deadline, START + (slot + 1) * SLOT)
    return (ends - begins) / HOUR


def _open_hours(simulation: Simulation, lane: Lane, slot: int) -> float:
    begins, ends = START + slot * SLOT, START + (slot + 1) * SLOT
    if not isinstance(simulation.places[lane.backend], LikeThisMachine):
        return SLOT / HOUR
    taken = timedelta(0)
    for spell in simulation.world.inference():
        taken += max(timedelta(0), min(ends, spell.ends) - max(begins, spell.begins))
    return (SLOT - taken) / HOUR


def _kaggle(simulation: Simulation) -> LikeKaggle:
    kaggle = simulation.places["kaggle"]
    assert isinstance(kaggle, LikeKaggle)
    return kaggle


def _week_hours(simulation: Simulation, week: int) -> float:
    kaggle = _kaggle(simulation)
    return simulation.world.quota(week, kaggle.least, kaggle.extra) / HOUR
