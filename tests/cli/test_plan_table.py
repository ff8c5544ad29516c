"""The table of rented machines: what fits, for how long and how much, which was chosen, and why not the others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from elias.cli.plan_table import print_others
from elias.domain.offer import Offer
from elias.domain.plan import NotTaken, Plan, PlannedSegment
from elias.units import FREE, Money

LARGE = Offer(
    backend="rented",
    variant="large",
    accelerator="large (A10G)",
    accelerator_count=4,
    memory_bytes=24 * 2**30,
    tflops=70,
    hourly=Money.usd(2),
    fits=True,
    likely_span=timedelta(hours=1.5),
    likely_cost=Money.usd(3),
    longest=None,
    left=None,
)
SPOT = replace(LARGE, variant="large spot", likely_hourly=Money.usd("0.80"), likely_cost=Money.usd("1.30"))
SMALL = replace(LARGE, variant="small", fits=False)
HERE = replace(LARGE, backend="local", variant="", accelerator="cpu", hourly=FREE)


def test_the_chosen_one_stands_with_the_others_and_each_says_why(capsys: pytest.CaptureFixture[str]):
    chosen = PlannedSegment(offer=SPOT, starts_at=datetime(2026, 11, 24, tzinfo=UTC), span=timedelta(hours=2))
    others = (
        NotTaken(offer=LARGE, why="dearer"),
        NotTaken(offer=SMALL, why="needs 51.8 GiB"),
        NotTaken(offer=HERE, why="too slow"),
    )
    print_others(Plan(segments=(chosen, chosen), not_taken=others))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line]
    assert lines[:4] == [
        "offer GPUs fits hours $/h all of it",
        "rented large spot 4 x A10G yes 1.5 $0.80 of $2.00 $1.30 chosen",
        "rented large 4 x A10G yes 1.5 $2.00 $3.00 dearer",
        "rented small 4 x A10G no - $2.00 - needs 51.8 GiB",
    ]
    assert lines[-1] == "not local (cpu): too slow"


def test_where_nothing_is_rented_there_is_no_table(capsys: pytest.CaptureFixture[str]):
    print_others(Plan(segments=(), not_taken=(NotTaken(offer=HERE, why="too slow"),)))
    assert capsys.readouterr().out == "not local (cpu): too slow\n"
