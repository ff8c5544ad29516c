"""`elias doctor`: what this machine can do, and what each strategy still needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from elias.cli.output import Json, emit_json, emit_table

if TYPE_CHECKING:
    from elias.domain.offer import Offer
    from elias.wiring.doctor import Examination, Strategy

app = typer.Typer(add_completion=False)
MOST_SHOWN = 3
"""Offers of one place."""
GIB = 2**30


@app.command()
def doctor(json: Json = False) -> None:
    """Read CPU, memory, disk and GPUs, name the tier, and say what each strategy lacks."""
    from elias.config import load
    from elias.wiring.doctor import examine

    found = examine(load())
    if json:
        emit_json(found)
        return
    _print(found)


def _print(found: Examination) -> None:
    machine = found.machine
    cards = ", ".join(f"{gpu.name} {gpu.memory_bytes / GIB:.0f} GiB" for gpu in machine.gpus) or "none found"
    print(f"cpu     {machine.cores} cores")
    print(f"memory  {machine.memory_bytes / GIB:.0f} GiB")
    print(f"disk    {machine.disk_bytes / GIB:.0f} GiB, {machine.disk_free_bytes / GIB:.0f} GiB free")
    print(f"gpu     {cards}")
    print(f"tier    {found.tier.name}: training {found.tier.training}")
    if found.next_tier:
        print(f"        for {found.next_tier.name} it lacks: {'; '.join(found.lacks_for_next)}")
    print(f"base    {found.base}\n")
    rows = [(s.name, "ready" if s.needs is None else "not yet", _says(s)) for s in found.strategies]
    emit_table(("strategy", "state", "offers, or what it needs"), rows, empty="no backend is installed")


def _says(strategy: Strategy) -> str:
    if strategy.needs is not None:
        return strategy.needs + (f"; {strategy.fix}" if strategy.fix else "")
    open_ones = [_offer(offer) for offer in strategy.offers if offer.refused is None]
    more = f"; {len(open_ones) - MOST_SHOWN} more: elias offers" if len(open_ones) > MOST_SHOWN else ""
    return "; ".join(open_ones[:MOST_SHOWN]) + more or strategy.remark or "the places above"


def _offer(offer: Offer) -> str:
    left = f", {offer.left} left" if offer.left is not None else ""
    return f"{offer.accelerator_count} x {offer.accelerator}, {offer.hourly} an hour{left}"
