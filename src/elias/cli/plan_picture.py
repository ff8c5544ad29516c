"""The pictures of a plan as SVG or PNG, by matplotlib, which is imported only here."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elias.cli.plan_chart import Bar, Chart, deadline_words, is_in_days, ticks
from elias.domain.plan import WhatIf
from elias.errors import InputError, MissingPackage
from elias.units import Money
from elias_trainer.contract import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png")
WORDS_WIDE, LINE_HIGH = 0.25, 0.06
"""Of the curve's width, and of its greatest cost: the room that a place's name takes beside its point."""
# told apart by people who see colours otherwise, and in grey: Okabe and Ito, https://jfly.uni-koeln.de/color/
FREE, PAID, LINE, SPENT, GREY = "#56B4E9", "#E69F00", "#D55E00", "#0072B2", "#666666"
STYLE = {
    "font.size": 9,
    "svg.hashsalt": "elias",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def check_picture(path: Path) -> None:
    """Before anything is computed. Raises InputError, MissingPackage."""
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--picture {path} is neither SVG nor PNG", fix="end its name with .svg or .png")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent}", fix="make it, or write the picture elsewhere")
    try:
        import matplotlib  # noqa: F401 - asked for before the planning
    except ModuleNotFoundError as error:
        raise MissingPackage(
            "a picture in a file needs the package 'matplotlib'",
            fix="pip install 'elias-node[picture]'; --picture - draws it in the terminal without",
        ) from error


def draw_gantt(chart: Chart, path: Path, title: str) -> None:
    """Bars by place over time; what it costs below, where anybody pays."""

    def draw(figure: Figure) -> None:
        heights = [len(chart.rows), 1.6] if chart.money else [1]
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        _bars(axes[0], chart)
        if chart.money:
            _money(axes[1], chart)
        _time_axis(axes[-1], chart.first, chart.last)
        axes[-1].set_xlabel("local time")
        axes[0].set_title(title, loc="left", fontsize=10)
        _legend(figure, axes[0], len(heights))

    rows = len(chart.rows)
    _save(path, (9.0, 1.9 + 0.55 * rows + (1.4 if chart.money else 0.0)), draw)


def draw_curve(points: Sequence[WhatIf], path: Path, title: str) -> None:
    """Cost against deadline; a deadline that no plan keeps is a cross on the axis."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        kept = [point for point in points if point.expected is not None and point.reserve is not None]
        missed = [point.deadline for point in points if point.expected is None]
        at = [_number(point.deadline) for point in kept]
        most: Any = {"color": PAID, "mfc": "white", "label": "at most (reserved)"}
        likely: Any = {"color": SPENT, "label": "expected"}
        # steps: a plan keeps every later deadline, too
        axes.plot(at, [_usd(p.reserve) for p in kept], "s--", drawstyle="steps-post", **most)
        axes.plot(at, [_usd(p.expected) for p in kept], "o-", drawstyle="steps-post", **likely)
        if missed:
            axes.plot([_number(m) for m in missed], [0] * len(missed), "x", color=LINE, label="no plan keeps it")
        _places(axes, kept)
        axes.set(xlabel="deadline (local time)", ylabel="cost in USD")
        axes.set_ylim(bottom=-0.03 * _top(kept), top=1.25 * _top(kept))
        first, last = points[0].deadline, points[-1].deadline
        room = max(last - first, timedelta(minutes=1))
        _time_axis(axes, first - room * 0.05, last + room * 0.2)
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(axis="y", color="#dddddd")
        _legend(figure, axes, 1)

    _save(path, (9.0, 4.2), draw)


def _save(path: Path, inches: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """The same plan gives the same bytes; the file appears whole."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        written = io.BytesIO()
        kind = path.suffix.lower()[1:]
        figure.savefig(written, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, written.getvalue())


def _bars(axes: Axes, chart: Chart) -> None:
    for bar in chart.bars:
        _bar(axes, chart, bar)
    for quota in chart.quotas:
        row = chart.rows.index(quota.row)
        for n, moment in enumerate(quota.refreshes):
            label = "quota begins anew" if n == 0 else None
            axes.plot([_number(moment)] * 2, [row - 0.45, row + 0.45], ":", color=GREY, linewidth=1.8, label=label)
    if chart.deadline is not None and chart.has_deadline:
        axes.axvline(_number(chart.deadline), color=LINE, linestyle="--", label=deadline_words(chart))
    elif chart.deadline is not None:
        axes.plot([], [], ">", color=LINE, label=f"beyond the axis: {deadline_words(chart)}")
    words = {quota.row: quota.words for quota in chart.quotas}
    axes.set_yticks(range(len(chart.rows)), [f"{r}\n{words[r]}" if r in words else r for r in chart.rows])
    axes.set_ylim(len(chart.rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _bar(axes: Axes, chart: Chart, bar: Bar) -> None:
    starts, ends = _number(bar.starts), _number(bar.ends or chart.last)
    row, colour, words = chart.rows.index(bar.row), PAID if bar.is_paid else FREE, _bar_words(bar)
    label = "paid" if bar.is_paid else "free"
    known = axes.get_legend_handles_labels()[1]
    hatch = "///" if bar.is_paid else None
    axes.barh(
        row, ends - starts, left=starts, height=0.55, color=colour, edgecolor="white", hatch=hatch,
        label=None if label in known else label,
    )  # fmt: skip
    is_wide = (ends - starts) / (_number(chart.last) - _number(chart.first)) > 0.01 + 0.012 * len(words)
    if is_wide:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
        axes.text((starts + ends) / 2, row, words, ha="center", va="center", fontsize=8, bbox=box)


def _bar_words(bar: Bar) -> str:
    number = str(bar.number) if bar.run is None else f"{bar.run[-6:]}.{bar.number}"
    return number if bar.ends else f"{number} …"


def _money(axes: Axes, chart: Chart) -> None:
    edges = {chart.first, chart.last} | {s.starts for s in chart.money} | {s.ends for s in chart.money}
    moments = sorted(edges)
    at, reserve = [_number(moment) for moment in moments], [chart.reserved_by(moment) for moment in moments]
    axes.plot(at, reserve, "--", color=PAID, drawstyle="steps-post", label="at most (reserved)")
    axes.plot(at, [chart.expected_by(moment) for moment in moments], "-", color=SPENT, label="expected")
    if chart.deadline is not None and chart.has_deadline:
        axes.axvline(_number(chart.deadline), color=LINE, linestyle="--")
    axes.set_ylabel("USD in all")
    axes.set_ylim(bottom=0, top=max(reserve) * 1.15 or 1.0)
    axes.legend(loc="upper left", frameon=False, fontsize=8)


def _time_axis(axes: Axes, first: datetime, last: datetime) -> None:
    moments = list(ticks(first, last, 8))
    form = "%a %d %b" if is_in_days(first, last) else "%a %H:%M"
    axes.set_xticks([_number(moment) for moment in moments], [f"{moment:{form}}" for moment in moments])
    axes.set_xlim(_number(first), _number(last))


def _legend(figure: Figure, axes: Axes, panels: int) -> None:
    """Below the picture, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=8)


def _places(axes: Axes, kept: Sequence[WhatIf]) -> None:
    """Which places a point takes, where that changes and another one's words leave room: the rows say all."""
    said: tuple[str, ...] = ()
    written: list[tuple[datetime, float, float]] = []
    width = (kept[-1].deadline - kept[0].deadline) * WORDS_WIDE if kept else timedelta(0)
    for point in kept:
        if point.places == said:
            continue
        said, foot = point.places, _usd(point.reserve)
        head = foot + _top(kept) * LINE_HIGH * len(said)
        if any(point.deadline - at < width and foot < upper and lower < head for at, lower, upper in written):
            continue
        written.append((point.deadline, foot, head))
        where = (_number(point.deadline), foot)
        axes.annotate(
            "\n".join(said), where, xytext=(5, 5), textcoords="offset points", fontsize=7, ha="left", va="bottom"
        )


def _top(points: Sequence[WhatIf]) -> float:
    return max((_usd(point.reserve) for point in points), default=0.0) or 1.0


def _number(moment: datetime) -> float:
    return moment.timestamp()


def _usd(money: Money | None) -> float:
    return 0.0 if money is None else money.micro_usd / 1e6
