"""`elias offers`: what every place offers for a run, in one list, with what it would take and cost there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.asking import Accumulation, Base, BatchSize, Epochs, Length, Recompute, Steps
from elias.cli.output import Json, emit_json, emit_table
from elias_trainer.contract import Method

if TYPE_CHECKING:
    from elias.domain.speed import Estimate
    from elias.services.offers import OfferRow
    from elias.wiring.offers import Listing

app = typer.Typer(add_completion=False)
COLUMNS = ("place", "accelerator", "$/h", "left", "session", "at once", "starts in", "s/step", "hours", "cost",
           "fails", "data")  # fmt: skip


@app.command()
def offers(
    base: Base = None,
    corpus: Annotated[
        str | None, typer.Option(help="A corpus, by the beginning of its digest.  [default: the latest]")
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    method: Annotated[Method, typer.Option(help="What is trained.")] = Method.LORA,
    batch_size: BatchSize = 4,
    accumulation: Accumulation = 1,
    sequence_length: Length = 1024,
    packing: Annotated[bool, typer.Option(help="Several examples in one sequence.")] = False,
    gradient_checkpointing: Recompute = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a place may take to answer.")] = 20.0,
    json: Json = False,
) -> None:
    """Every place in one list: price, quota, speed, failures seen, what data may go there. Starts nothing.

    A place that cannot be asked yet is listed with what it lacks.
    """
    from elias.cli.asking import Asked, wanted_run
    from elias.config import load
    from elias.units import span_of
    from elias.wiring.offers import list_offers

    config = load()
    asked = Asked(
        base=base, epochs=epochs, steps=steps, method=method, batch_size=batch_size, accumulation=accumulation,
        sequence_length=sequence_length, packing=packing, gradient_checkpointing=gradient_checkpointing,
    )  # fmt: skip
    wanted = wanted_run(config, asked)
    listing = list_offers(config, wanted, corpus, span_of(timeout, "s"))
    if json:
        emit_json(as_answer(listing))
        return
    _print(listing, wanted.base.reference)


def as_answer(listing: Listing) -> dict[str, object]:
    """The fields of `--json`."""
    return {
        "corpus": listing.corpus.digest if listing.corpus else None,
        "step_total": listing.work.step_total,
        "places": [
            {
                "backend": place.backend,
                "ready": place.not_ready is None,
                "needs": place.not_ready,
                "fix": place.fix,
                "left_out": place.left_out,
                "offers": [_fields(row) for row in place.rows],
            }
            for place in listing.places
        ],
    }


def _fields(row: OfferRow) -> dict[str, object]:
    seen = row.reliability
    return {
        "offer": row.offer,
        "refused": row.refused,
        "takes": row.takes,
        "step_seconds": row.forecast.step,
        "steps": row.forecast.steps,
        "start_up_seconds": row.forecast.overheads.start_up,
        "seconds": row.seconds,
        "cost": row.cost,
        "basis": row.forecast.basis,
        "failure_rate": seen.failure_rate,
        "segments_seen": seen.segments,
        "failures_seen": seen.failures,
        "start_delay_seen": seen.start_delay,
    }


def _print(listing: Listing, base: str) -> None:
    corpus = f"corpus {listing.corpus.digest.short} ({listing.corpus.label})" if listing.corpus else "no corpus yet"
    total = f"{listing.work.step_total} steps" if listing.work.step_total else "steps unknown"
    print(f"{base}, {corpus}, {total}\n")
    rows = [row for place in listing.places for row in place.rows]
    taken = [_cells(row) for row in rows if row.refused is None]
    emit_table(COLUMNS, taken, empty="no place takes this run as it is")
    if taken:
        print("\ns/step and hours: likely, and in brackets what nine cases of ten lie between; start-up is counted in")
    for row in rows:
        if row.refused is not None:
            print(f"not {_name(row)}: {row.refused}")
    for place in listing.places:
        if place.not_ready is not None:
            print(f"not {place.backend}: {place.not_ready}" + (f" (fix: {place.fix})" if place.fix else ""))
        elif place.left_out is not None:
            print(f"{place.backend}: {place.left_out}; --strategy {place.backend} goes there")


def _cells(row: OfferRow) -> tuple[object, ...]:
    offer, seen = row.offer, row.reliability
    delay = offer.start_delay.total_seconds() if seen.start_delay is None else seen.start_delay
    return (
        _name(row),
        f"{offer.accelerator_count} x {offer.accelerator}",
        offer.hourly if offer.hourly.micro_usd else "free",
        _left(row),
        span(offer.longest.total_seconds()) if offer.longest else "no limit",
        offer.concurrency,
        span(delay) + ("" if seen.start_delay is None else " seen"),
        _range(row.forecast.step, 1),
        _range(row.seconds, 3600),
        "?" if row.cost is None else row.cost,
        f"{seen.failure_rate:.0%} ({f'{seen.failures} of {seen.segments}' if seen.segments else 'assumed'})",
        row.takes,
    )


def _name(row: OfferRow) -> str:
    return f"{row.offer.backend} {row.offer.variant}".rstrip()


def _left(row: OfferRow) -> str:
    if row.offer.left is None:
        return "no quota"
    until = f", new {row.offer.refreshes_at:%a %H:%M}" if row.offer.refreshes_at else ""
    return span(row.offer.left.total_seconds()) + until


def _range(estimate: Estimate | None, unit: float) -> str:
    if estimate is None:
        return "?"
    low, likely, high = (figure(value / unit) for value in (estimate.low, estimate.likely, estimate.high))
    return f"{likely} ({low}..{high})"


def figure(value: float) -> str:
    """Two digits that count, or all of a larger number: `0.042`, `3.1`, `450`."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def span(seconds: float) -> str:
    """For people: `45 s`, `3 min`, `11.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
