"""The offers of places that rent machines of several kinds, as one table: what fits, how long, how much, why not."""

from __future__ import annotations

from collections.abc import Mapping

from elias.cli.output import emit_table
from elias.domain.offer import Offer
from elias.domain.plan import NotTaken, Plan
from elias.errors import EliasError

COLUMNS = ("offer", "GPUs", "fits", "hours", "$/h", "all of it", "")
CHOSEN = "chosen"


def print_others(plan: Plan, most: int | None = None) -> None:
    """All that a plan does not use, a line each; a place with several offers gets a table, the chosen one in it.

    With `most`, the cheapest so many of those that could take it.
    """
    chosen = [NotTaken(offer=offer, why=CHOSEN) for offer in dict.fromkeys(s.offer for s in plan.segments)]
    others = [taken for taken in plan.not_taken if taken.offer.variant]
    shown = others if most is None else sorted((o for o in others if o.offer.refused is None), key=_likely)[:most]
    rows = [_cells(taken) for taken in (*(taken for taken in chosen if taken.offer.variant), *shown)]
    if rows:
        print()
        emit_table(COLUMNS, rows, empty="")
    if len(shown) < len(others):
        print(f"and {len(others) - len(shown)} more: elias plan, with the same options")
    if rows:
        print("hours and all of it: the whole run, likely, interruptions counted in; $/h on spot: likely, of reserved")
    for other in plan.not_taken:
        if not other.offer.variant:
            print(f"not {other.offer.backend} ({other.offer.accelerator}): {other.why}")


def print_unmade(places: Mapping[str, EliasError]) -> None:
    """Of configured places that no plan reckons with, what keeps them from it."""
    for name, error in places.items():
        print(f"not {name}: {error.what} (fix: {error.fix})")


def _likely(taken: NotTaken) -> int:
    cost = taken.offer.likely_cost or taken.offer.hourly
    return cost.micro_usd


def _cells(taken: NotTaken) -> tuple[str, ...]:
    offer = taken.offer
    return (
        f"{offer.backend} {offer.variant}",
        f"{offer.accelerator_count} x {offer.accelerator.partition('(')[2].rstrip(')') or offer.accelerator}",
        {True: "yes", False: "no", None: "?"}[offer.fits],
        _hours(offer),
        _price(offer),
        "-" if offer.fits is False else str(offer.likely_cost) if offer.likely_cost else "?",
        taken.why,
    )


def _hours(offer: Offer) -> str:
    if offer.fits is False:
        return "-"
    return "?" if offer.likely_span is None else f"{offer.likely_span.total_seconds() / 3600:.2g}"


def _price(offer: Offer) -> str:
    if not offer.hourly.micro_usd:
        return "?"
    return str(offer.hourly) if offer.likely_hourly is None else f"{offer.likely_hourly} of {offer.hourly}"
