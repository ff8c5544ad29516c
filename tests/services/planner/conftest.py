"""Small worlds of places and runs, by hand and at random."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.speed import Estimate
from elias.services.planner.problem import Pace, Place, Problem, RunAsk, Window
from elias.units import FREE, Money

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EXACTLY = Estimate.around


def place(backend: str, **changes: object) -> Place:
    """With fields of the offer and of the place, by name."""
    own = {name: changes.pop(name) for name in list(changes) if name in Place.__dataclass_fields__ and name != "offer"}
    fields = {
        "backend": backend,
        "accelerator": "card",
        "accelerator_count": 1,
        "memory_bytes": 2**34,
        "tflops": None,
        "hourly": FREE,
        "longest": None,
        "left": None,
    }
    return Place(offer=Offer(**(fields | changes)), **own)


def pace(step_s: float, start_up_s: float = 0.0, factor: float = 1.0) -> Pace:
    return Pace(step=Estimate.around(step_s, factor), start_up=Estimate.around(start_up_s, factor))


def ask(steps: int, paces: dict[str, Pace], **changes: object) -> RunAsk:
    fields = {"run": "run-1", "label": Label.PUBLIC, "shortest": timedelta(seconds=1)}
    return RunAsk(steps=steps, paces=paces, **(fields | changes))


def problem(places: list[Place], *asks: RunAsk, **changes: object) -> Problem:
    return Problem(now=NOW, places=tuple(places), runs=asks, **changes)


_NAMES = ("a", "b", "c")
_HOURS = st.integers(0, 8).map(lambda hours: hours * HOUR)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, ...]:
    edges = sorted(draw(st.sets(st.integers(0, 20), min_size=2, max_size=4)))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return tuple(Window(opens=NOW + a * HOUR, closes=NOW + b * HOUR) for a, b in pairs)


@st.composite
def places(draw: st.DrawFn, name: str) -> Place:
    hourly = draw(st.sampled_from([0, 0, 1_000_000, 2_500_000, 7_000_001]))
    has_quota, is_risky = draw(st.booleans()), draw(st.booleans())
    return place(
        name,
        hourly=Money(hourly),
        likely_hourly=draw(st.none() | st.just(Money(hourly // 3))),
        longest=draw(st.none() | st.integers(1, 5).map(lambda hours: hours * HOUR)),
        left=draw(_HOURS) if has_quota else None,
        refreshes_at=NOW + draw(st.integers(1, 10)) * HOUR if has_quota else None,
        refill=draw(st.none() | _HOURS) if has_quota else None,
        refresh_every=10 * HOUR,
        start_delay=draw(st.sampled_from([timedelta(0), timedelta(minutes=20)])),
        once=draw(st.sampled_from([FREE, Money(50_000)])) if hourly else FREE,
        windows=draw(st.just(()) | windows()),
        interruptions_per_hour=draw(st.sampled_from([0.0, 0.1])) if is_risky else 0.0,
        failure_rate=draw(st.sampled_from([0.0, 0.05])) if is_risky else 0.0,
        needs_encryption=draw(st.booleans()),
        refused=draw(st.sampled_from([None, None, None, None, "no"])),
        refused_until=draw(st.none() | st.integers(1, 10).map(lambda hours: NOW + hours * HOUR)),
    )


@st.composite
def problems(draw: st.DrawFn, most_steps: int = 5) -> Problem:
    """One run over up to three places and 40 hours, small enough to try every plan."""
    chosen = [draw(places(name)) for name in _NAMES[: draw(st.integers(1, 3))]]
    certain = draw(st.booleans())
    paces = {
        one.key: pace(
            draw(st.sampled_from([600, 1800, 3600, 5400])),
            draw(st.sampled_from([0, 300])),
            1.0 if certain else draw(st.sampled_from([1.1, 1.5])),
        )
        for one in chosen
    }
    asked = ask(
        draw(st.integers(1, most_steps)),
        paces,
        label=draw(st.sampled_from([Label.PUBLIC, Label.PUBLIC, Label.PRIVATE])),
        deadline=draw(st.none() | st.integers(1, 30).map(lambda hours: NOW + hours * HOUR)),
        budget=draw(st.none() | st.sampled_from([0, 2_000_000, 6_000_000, 30_000_000]).map(Money)),
        most_steps=draw(st.none() | st.integers(1, 3)),
    )
    return problem(chosen, asked, horizon=40 * HOUR)


def kaggle(**changes: object) -> Place:
    """30 hours a week, 9 at a stretch, 4 of them left until Saturday."""
    fields = {
        "longest": 9 * HOUR,
        "left": 4 * HOUR,
        "refreshes_at": datetime(2026, 11, 28, tzinfo=UTC),
        "refill": 30 * HOUR,
        "concurrency": 2,
        "needs_encryption": True,
        "seals_private": True,
    }
    return place("kaggle", **(fields | changes))


def rented(variant: str = "ml.g5.xlarge", dollars: int = 2, **changes: object) -> Place:
    fields = {"variant": variant, "hourly": Money.usd(dollars), "needs_encryption": True, "longest": 72 * HOUR}
    return place("sagemaker", **(fields | changes))


def days(count: float) -> datetime:
    return NOW + timedelta(days=count)
