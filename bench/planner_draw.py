"""What is drawn by a world's seed: how scarce its places are, how fast they truly are, and which runs arrive."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.services.estimate import forecast_new
from elias.testing.places.kinds import RENTED, LikeKaggle, LikeSageMaker, LikeThisMachine
from elias.testing.places.place import NoTrouble, SimulatedPlace, Trouble, TrueSpeed
from elias.testing.places.world import HOUR, START, Inference, World, WorldClock
from elias.units import Money
from elias_trainer.contract import BaseModel, Job, Recipe

BASE = "deepseek-ai/deepseek-coder-1.3b-instruct"
PLACE_ERROR, JOB_ERROR = 0.25, 0.03
"""Of the logarithm: how far the true speed of a place, and of a job, is off the model's word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scarcity:
    """How much there is of what costs nothing, and how much is wanted of it."""

    hours: tuple[float, float, float]
    """Shortest, median and longest run, on the two T4s."""
    rooms: tuple[float, ...]
    """Times those hours, until the deadline."""
    margin: tuple[float, float]
    """Hours on top, uniform."""
    extra: timedelta
    """At the most, of the weekly hours over 30."""
    inference: Inference


SCARCITIES: Mapping[str, Scarcity] = {
    "roomy": Scarcity(
        hours=(3.0, 6.0, 24.0),
        rooms=(1.5, 2.0, 3.0, 6.0),
        margin=(6.0, 24.0),
        extra=12 * HOUR,
        inference=Inference(),
    ),
    "tight": Scarcity(
        hours=(3.0, 12.0, 24.0),
        rooms=(1.25, 1.5, 2.0, 3.0),
        margin=(3.0, 12.0),
        extra=0 * HOUR,
        inference=Inference(days=7, opens=8.0, off=0.5, hours=(15.0, 16.0), evenings=0.0),
    ),
}
"""With 50 runs in 8 weeks free hours mostly suffice in the one; in the other there are fewer than are wanted."""


def scarcity_of(seed: int) -> str:
    """Of the world with that seed."""
    return "roomy" if seed % 2 else "tight"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    number: int
    arrives: datetime
    steps: int
    deadline: datetime
    budget: Money | None
    is_bound: bool = True
    """Whether it ends with its deadline, whatever it has reached; else it is trained to its last step."""

    @property
    def id(self) -> str:
        return f"sim-{self.number:04d}"


RECIPE = Recipe(batch_size=4, accumulation=4, sequence_length=1024)
"""Of all runs, but for their steps."""


def true_speed(world: World) -> Callable[[Job, Offer], TrueSpeed]:
    """The model's own word before anything was seen, off by what was drawn for the place and for the job."""
    kept: dict[str, Any] = {}

    def truth(job: Job, offer: Offer) -> TrueSpeed:
        if offer.accelerator not in kept:
            kept[offer.accelerator] = forecast_new(a_need(), offer)
        told = kept[offer.accelerator]
        off = world.random("place", offer.accelerator).gauss(0.0, PLACE_ERROR)
        own = world.random("job", job.run).gauss(0.0, JOB_ERROR)
        start = world.random("start", job.segment).gauss(0.0, 0.2)
        return TrueSpeed(
            step_s=round(told.step.likely * math.exp(off + own), 4),
            load_s=round(told.overheads.start_up.likely * math.exp(start), 3),
            precision="bf16" if "A10G" in offer.accelerator or "RTX 30" in offer.accelerator else "fp16",
        )

    return truth


def make_places(
    world: World, clock: WorldClock, trouble: Trouble | None = None, scarcity: Scarcity = SCARCITIES["roomy"]
) -> dict[str, SimulatedPlace]:
    common: dict[str, Any] = {"world": world, "clock": clock, "truth": true_speed(world)}
    common["trouble"] = trouble or NoTrouble()
    outages = {
        "kaggle": world.outages("kaggle", timedelta(days=4), timedelta(minutes=30)),
        "sagemaker": world.outages("sagemaker", timedelta(days=14), timedelta(minutes=20)),
    }
    return {
        "local": LikeThisMachine(name="local", **common),
        "kaggle": LikeKaggle(name="kaggle", extra=scarcity.extra, outages=outages["kaggle"], **common),
        "sagemaker": LikeSageMaker(name="sagemaker", outages=outages["sagemaker"], kinds=RENTED, **common),
    }


def draw_runs(world: World, count: int, scarcity: Scarcity = SCARCITIES["roomy"]) -> Sequence[RunSpec]:
    """Arrivals uniform over the weeks, sizes log-normal, deadlines tight to wide; one run in five has no money."""
    drawn, found = world.random("runs"), list[RunSpec]()
    kaggle = next(iter(make_places(world, WorldClock())["kaggle"].offers(a_need())))
    step_s = forecast_new(a_need(), kaggle).step.likely
    shortest, median, longest = scarcity.hours
    arrivals = sorted(START + drawn.random() * world.weeks * timedelta(weeks=1) for _ in range(count))
    for number, arrives in enumerate(arrivals):
        hours = min(longest, max(shortest, drawn.lognormvariate(math.log(median), 0.5)))
        room = drawn.choice(scarcity.rooms) * hours + drawn.uniform(*scarcity.margin)
        found.append(
            RunSpec(
                number=number,
                arrives=arrives.replace(microsecond=0),
                steps=max(1, round(hours * 3600 / step_s)),
                deadline=(arrives + room * HOUR).replace(microsecond=0),
                budget=None if drawn.random() < 0.2 else Money.usd(drawn.choice([5, 15, 40])),
            )
        )
    return found


def a_need() -> Need:
    return Need(base=BaseModel(reference=BASE), recipe=RECIPE, label=Label.PUBLIC, corpus_bytes=1000)
