"""The offers of places that rent machines, as one table: what fits, for how long and how much, and why not."""

from __future__ import annotations

from collections.abc import Sequence

from elias.cli.output import emit_table
from elias.domain.offer import Offer
from elias.domain.plan import NotTaken, Plan

COLUMNS = ("offer", "GPUs", "fits", "hours", "$/h", "all of it", "")
CHOSEN = "chosen"


def print_others(found: Plan) -> None:
    """Of a plan: everything but its segments. Places with several offers get a table, each other one a line."""
    chosen = [segment.offer for segment in found.segments]
    rented = [NotTaken(offer=offer, why=CHOSEN) for offer in dict.fromkeys(chosen)] + list(found.not_taken)
    rows = [row(taken.offer, taken.why) for taken in rented if taken.offer.variant]
    if rows:
        print()
        emit_table(COLUMNS, rows, empty="")
        print("all of it: the whole run at the likely price, its interruptions counted in; reserved is $/h in full")
    for other in found.not_taken:
        if not other.offer.variant:
            print(f"not {other.offer.backend} ({other.offer.accelerator}): {other.why}")


def row(offer: Offer, why: str) -> Sequence[str]:
    hours = f"{offer.likely_span.total_seconds() / 3600:.1f}" if offer.likely_span else "?"
    fits = "yes" if offer.likely_span else "no" if offer.refused else "?"
    price = str(offer.hourly) if offer.hourly.micro_usd else "?"
    if offer.likely_hourly is not None and offer.hourly.micro_usd:
        price = f"{offer.likely_hourly} of {offer.hourly}"
    return (
        f"{offer.backend} {offer.variant}",
        f"{offer.accelerator_count} x {offer.accelerator}",
        fits,
        hours,
        price,
        str(offer.likely_cost) if offer.likely_cost else "?",
        why,
    )
