"""How long the planner takes, and how that grows: a JSON line for each size, and a drawing of them all.

The places are drawn with a fixed seed: this machine at night, a weekly quota, and rented machines of all prices and
speeds, every other one on spot. `--full` ends with 200 runs x 200 offers x 8 weeks.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.speed import Estimate
from elias.services.planner.check import check_plans
from elias.services.planner.problem import Pace, Place, Problem, RunAsk, Window
from elias.services.planner.queue import plan_queue
from elias.services.planner.single import plan_run
from elias.units import FREE, Money

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OFFERS = (10, 20, 50, 100, 200)
QUEUES = ((5, 20), (10, 50), (20, 50), (50, 50))
FULL = ((50, 200), (100, 200), (200, 200))
DEADLINES_DAYS = (1, 2, 4, 7, 14)
REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="up to 200 runs x 200 offers")
    parser.add_argument("--svg", type=Path, default=Path(".bench/planner_latency.svg"), help="where it is drawn")
    given = parser.parse_args()
    single = [_single(offers) for offers in OFFERS]
    queues = [_queue(runs, offers) for runs, offers in (*QUEUES, *(FULL if given.full else ()))]
    _draw(given.svg, single, queues)
    return 0


def _single(offers: int) -> dict[str, object]:
    """Over all deadlines, each the best of a few: the middle one and the slowest."""
    taken, proven = [], 0
    for days in DEADLINES_DAYS:
        problem = world(offers, weeks=8, asks=[_ask("run", 2000, days, 50)])
        spans = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            plan = plan_run(problem, problem.runs[0])
            spans.append(time.perf_counter() - began)
        taken.append(min(spans))
        proven += plan.bound == plan.expected
    line = {
        "bench": "planner",
        "what": "one run",
        "offers": offers,
        "median_ms": round(sorted(taken)[len(taken) // 2] * 1e3, 1),
        "slowest_ms": round(max(taken) * 1e3, 1),
        "plans": len(taken),
        "proven_cheapest": proven,
    }
    print(json.dumps(line), flush=True)
    return line


def _queue(runs: int, offers: int) -> dict[str, object]:
    drawn = random.Random(runs)
    asks = [
        _ask(f"run-{n:03d}", drawn.randint(100, 2500), drawn.uniform(2, 56), drawn.choice([0, 10, 50]))
        for n in range(runs)
    ]
    problem = world(offers, weeks=8, asks=asks)
    began = time.perf_counter()
    made = plan_queue(problem)
    taken = time.perf_counter() - began
    line = {
        "bench": "planner",
        "what": "queue",
        "runs": runs,
        "offers": offers,
        "weeks": 8,
        "seconds": round(taken, 2),
        "in_time": made.in_time,
        "most_in_time": made.most_in_time,
        "expected_usd": made.expected.micro_usd / 1e6,
        "gap": None if made.gap is None else round(made.gap, 4),
        "broken_rules": len(check_plans(problem, made.plans)),
    }
    print(json.dumps(line), flush=True)
    return line


def world(offers: int, *, weeks: int, asks: list[RunAsk]) -> Problem:
    """So many places, and each run with its own pace there."""
    drawn = random.Random(offers)
    nights = tuple(
        Window(opens=NOW + timedelta(days=day, hours=10), closes=NOW + timedelta(days=day, hours=20))
        for day in range(7 * weeks)
    )
    places = [
        _place("local", "", FREE, windows=nights),
        _place(
            "kaggle", "", FREE, longest=9 * HOUR, left=18 * HOUR, refreshes_at=NOW + timedelta(days=3.5), concurrency=2
        ),
    ]
    seconds = [90.0, 60.0]
    for number in range(offers - len(places)):
        speed = drawn.uniform(5, 60)
        price = Money.usd(str(round(60 / speed * drawn.uniform(0.3, 3), 3)))
        spot = number % 2 == 1
        seconds.append(speed)
        places.append(
            _place(
                "sagemaker",
                f"{number:03d}",
                price,
                likely_hourly=Money(price.micro_usd * 35 // 100) if spot else None,
                interruptions_per_hour=0.05 if spot else 0.0,
                longest=drawn.choice([24, 72, 120]) * HOUR,
                concurrency=2,
            )
        )
    factors = [drawn.uniform(1.1, 1.6) for _ in places]
    return Problem(
        now=NOW,
        places=tuple(places),
        runs=tuple(_paced(asked, places, seconds, factors) for asked in asks),
        horizon=timedelta(weeks=weeks),
    )


def _place(backend: str, variant: str, hourly: Money, **more: object) -> Place:
    windows = more.pop("windows", ())
    fields = {"longest": None, "left": None, "start_delay": timedelta(minutes=5), **more}
    offer = Offer(
        backend=backend,
        variant=variant,
        accelerator="drawn",
        accelerator_count=1,
        memory_bytes=24 * 2**30,
        tflops=None,
        hourly=hourly,
        **fields,  # type: ignore[arg-type]
    )
    return Place(offer=offer, windows=windows, refill=30 * HOUR, sessions=f"{backend} {variant}")  # type: ignore[arg-type]


def _ask(run: str, steps: int, days: float, dollars: int) -> RunAsk:
    deadline = NOW + timedelta(days=days)
    return RunAsk(run=run, label=Label.PUBLIC, steps=steps, paces={}, deadline=deadline, budget=Money.usd(dollars))


def _paced(asked: RunAsk, places: list[Place], seconds: list[float], factors: list[float]) -> RunAsk:
    from dataclasses import replace

    size = random.Random(asked.run).uniform(0.3, 2) if asked.run != "run" else 1.0
    start_up = Estimate.around(180, 1.5)
    paces = {
        place.key: Pace(step=Estimate.around(step * size, factor), start_up=start_up)
        for place, step, factor in zip(places, seconds, factors, strict=True)
    }
    return replace(asked, paces=paces)


def _draw(path: Path, single: list[dict[str, object]], queues: list[dict[str, object]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    offers = [line["offers"] for line in single]
    left.plot(offers, [line["median_ms"] for line in single], marker="o", label="median")
    left.plot(offers, [line["slowest_ms"] for line in single], marker="o", label="slowest")
    left.axhline(50, color="grey", linestyle=":")
    left.set(xlabel="offers", ylabel="ms", title="one run", ylim=(0, None))
    left.legend()
    sizes = [int(str(line["runs"])) * int(str(line["offers"])) for line in queues]
    right.plot(sizes, [line["seconds"] for line in queues], marker="o")
    right.axhline(10, color="grey", linestyle=":")
    right.set(xlabel="runs x offers, over 8 weeks", ylabel="s", title="queue", ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(json.dumps({"bench": "planner", "what": "drawing", "path": str(path)}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
