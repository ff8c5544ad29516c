"""A plan drawn: in characters as wide as the terminal, as SVG and as PNG; and cost against deadline as a curve."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.cli.plan_chart import Chart, chart_of, ticks, title_of
from elias.cli.plan_picture import check_picture, draw_curve, draw_gantt
from elias.cli.plan_text import NARROWEST, curve, gantt
from elias.domain.offer import Offer
from elias.domain.plan import Plan, PlannedSegment, WhatIf
from elias.errors import InputError, MissingPackage
from elias.units import FREE, Money

NOW = datetime(2026, 11, 24, 21, 0, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 28, tzinfo=UTC)
KAGGLE = Offer(
    backend="kaggle",
    accelerator="NvidiaTeslaT4",
    accelerator_count=2,
    memory_bytes=15 * 2**30,
    tflops=None,
    hourly=FREE,
    longest=timedelta(hours=9),
    left=timedelta(hours=19.8),
    refreshes_at=SATURDAY,
)
LOCAL = replace(KAGGLE, backend="local", accelerator="cpu", left=None, refreshes_at=None, longest=None)
SPOT = replace(LOCAL, backend="sagemaker", variant="ml.g5.12xlarge spot", hourly=Money.usd("7.09"))


def segment(offer: Offer, after: float, hours: float | None, money: tuple[str, str] = ("0", "0")) -> PlannedSegment:
    """Begins `after` hours; `money` is expected and at most, in USD."""
    return PlannedSegment(
        offer=offer,
        starts_at=NOW + timedelta(hours=after),
        span=None if hours is None else timedelta(hours=hours),
        expected=Money.usd(money[0]),
        reserve=Money.usd(money[1]),
        steps=100,
    )


WEEK = Plan(
    segments=(
        segment(LOCAL, 0, 12),
        segment(KAGGLE, 12.1, 8.8),
        segment(SPOT, 31, 4.5, ("11.40", "32.10")),
        segment(KAGGLE, 76, 8.8),
    ),
    deadline=NOW + timedelta(hours=99),
    wanted=0.9,
    chance=0.934,
    is_in_time=True,
)
CURVE = tuple(
    WhatIf(
        deadline=NOW + timedelta(hours=hours),
        ends_at=NOW + timedelta(hours=hours) if money else None,
        expected=Money.usd(money[0]) if money else None,
        reserve=Money.usd(money[1]) if money else None,
        places=places,
    )
    for hours, money, places in (
        (6, None, ()),
        (24, ("20", "44"), ("sagemaker/ml.g5.12xlarge spot",)),
        (84, ("0", "0"), ("kaggle", "local")),
    )
)


def test_every_place_has_a_row_and_the_deadline_the_week_and_the_money_are_drawn_in():
    lines = list(gantt(chart_of([WEEK], NOW), 80))
    rows = {line.split("  ")[0].strip(): line for line in lines}
    assert [name for name in ("local", "kaggle", "money") if name in rows] == ["local", "kaggle", "money"]
    assert "█1█" in rows["local"] and "█2█" in rows["kaggle"] and "▓" in rows["sagemaker ml.g5.12xlarg…"]
    week = next(line for line in lines if line.startswith("  its hours"))
    assert week.count("┼") == 1 and week.index("┼") < rows["kaggle"].rindex("█")
    assert all("┃" in rows[name] for name in ("local", "kaggle"))
    legend = "\n".join(lines)
    assert "in time with 93%" in legend and "$11.40 expected" in legend and "$32.10 at most" in legend
    assert "kaggle: 19.8 h left, new on" in legend


@given(width=st.integers(1, 200), hours=st.floats(0.01, 2000), deadline=st.floats(0.01, 4000))
def test_no_line_is_wider_than_the_terminal(width: int, hours: float, deadline: float):
    plan = Plan(
        segments=(segment(SPOT, 0.05, hours, ("3", "9")), segment(KAGGLE, hours + 1, hours)),
        deadline=NOW + timedelta(hours=deadline),
    )
    chart = chart_of([plan], NOW)
    assert all(len(line) <= max(width, NARROWEST) for line in gantt(chart, width))
    assert all(len(line) <= max(width, NARROWEST) for line in curve(CURVE, width))


def test_a_deadline_far_away_does_not_make_the_plan_invisible():
    far = replace(WEEK, segments=WEEK.segments[:1], deadline=NOW + timedelta(days=60))
    lines = list(gantt(chart_of([far], NOW), 80))
    bar = next(line for line in lines if line.startswith("local"))
    assert bar.count("█") > 50 and any("beyond: deadline" in line for line in lines)


def test_a_run_whose_end_nobody_knows_runs_on_to_the_edge():
    lines = list(gantt(chart_of([Plan(segments=(segment(LOCAL, 0, None),))], NOW), 60))
    assert next(line for line in lines if line.startswith("local")).endswith("▶")


@given(hours=st.integers(0, 9000), minutes=st.integers(1, 200_000))
def test_marks_of_time_are_in_order_few_and_on_the_axis(hours: int, minutes: int):
    begins = NOW + timedelta(hours=hours, minutes=7)
    found = list(ticks(begins, begins + timedelta(minutes=minutes), 8))
    assert found == sorted(found) and len(found) <= 12
    assert all(begins <= moment <= begins + timedelta(minutes=minutes) for moment in found)


def test_money_of_segments_that_overlap_adds_up():
    two = [Plan(segments=(segment(SPOT, 0, 10, ("4", "8")),)), Plan(segments=(segment(SPOT, 5, 10, ("2", "3")),))]
    chart = chart_of(two, NOW)
    assert chart.expected_by(NOW + timedelta(hours=7.5)) == pytest.approx(3 + 0.5)
    assert chart.reserved_by(NOW + timedelta(hours=4)) == 8 and chart.reserved_by(chart.last) == 11
    assert title_of(two).startswith("2 runs, done by") and "for $6.00 as expected and $11.00 at most" in title_of(two)


def test_the_curve_says_where_no_plan_is_and_what_the_others_cost():
    drawn = "\n".join(curve(CURVE, 80))
    assert "×" in drawn and "●" in drawn and "○" in drawn and "$44.00" in drawn and "× no plan" in drawn
    free = [replace(point, expected=FREE, reserve=FREE) for point in CURVE[1:]]
    assert sum("┤" in line for line in curve(free, 80)) == 1


def test_the_svg_names_places_money_deadline_and_units(tmp_path: Path):
    path = tmp_path / "plan.svg"
    draw_gantt(chart_of([WEEK], NOW), path, title_of([WEEK]))
    words = " ".join(element.text or "" for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text"))
    for wanted in ("local", "kaggle", "sagemaker ml.g5.12xlarge spot", "19.8 h left", "quota begins anew", "free",
                   "paid", "in time with 93%", "USD in all", "local time", "expected", "at most (reserved)",
                   "for $11.40 as expected and $32.10 at most"):  # fmt: skip
        assert wanted in words
    again = tmp_path / "again.svg"
    draw_gantt(chart_of([WEEK], NOW), again, title_of([WEEK]))
    assert again.read_bytes() == path.read_bytes()


def test_a_png_is_a_picture_that_is_not_empty(tmp_path: Path):
    from PIL import Image

    for draw, name in ((lambda path: draw_curve(CURVE, path, "What a deadline costs"), "curve.png"),
                       (lambda path: draw_gantt(chart_of([WEEK], NOW), path, "a week"), "week.png")):  # fmt: skip
        draw(tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_the_svg_of_the_curve_names_the_places_of_each_turn(tmp_path: Path):
    draw_curve(CURVE, tmp_path / "curve.svg", "What a deadline costs")
    text = (tmp_path / "curve.svg").read_text()
    assert all(
        re.search(rf">[^<]*{words}", text) for words in ("cost in USD", "kaggle", "no plan keeps it", "deadline")
    )


def test_names_of_places_are_not_written_over_one_another(tmp_path: Path):
    first, second, last = (
        replace(CURVE[1], deadline=NOW + timedelta(hours=hours), places=(name,))
        for hours, name in ((24, "one"), (25, "two"), (84, "three"))
    )
    draw_curve((first, second, last), tmp_path / "curve.svg", "What a deadline costs")
    text = (tmp_path / "curve.svg").read_text()
    assert [word in text for word in (">one", ">two", ">three")] == [True, False, True]


@pytest.mark.parametrize(("name", "why"), [("plan.pdf", "neither SVG nor PNG"), ("gone/plan.svg", "no folder")])
def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_planned(tmp_path: Path, name: str, why: str):
    with pytest.raises(InputError, match=why):
        check_picture(tmp_path / name)


def test_a_chart_knows_when_its_deadline_is_on_the_axis():
    chart: Chart = chart_of([WEEK], NOW)
    assert chart.has_deadline and chart.share(NOW) == 0 and chart.share(chart.last) == 1


def test_without_matplotlib_a_picture_in_a_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackage) as told:
        check_picture(tmp_path / "plan.svg")
    assert "elias-node[picture]" in told.value.fix and "--picture -" in told.value.fix
