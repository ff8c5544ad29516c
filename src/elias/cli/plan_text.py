"""The pictures of a plan in characters, as wide as the terminal: bars over time, and cost against deadline."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime

from elias.cli.plan_chart import Bar, Chart, Quota, deadline_words, is_in_days, moment_words, ticks
from elias.domain.plan import WhatIf
from elias.units import Money

NARROWEST = 40
MOST_LABEL = 24
HEIGHT = 9
"""Lines of the curve."""
LEVELS = " ▁▂▃▄▅▆▇█"
FREE_BAR, PAID_BAR, DEADLINE = "█", "▓", "┃"
PERIOD, REFRESH = "─", "┼"
QUOTA = "  its hours"
"""The row below a place that has a quota."""


def gantt(chart: Chart, width: int = 80) -> Iterator[str]:
    """Lines of at most `width` characters; segments are numbered as in the plan's table."""
    width = max(width, NARROWEST)
    quotas = {quota.row: quota for quota in chart.quotas}
    names = (*chart.rows, *([QUOTA] if quotas else []), *(["money"] if chart.money else []))
    label = min(MOST_LABEL, width // 3, max(len(name) for name in names))
    cells = width - label - 2
    yield _line("", _axis(chart, cells), label)
    for row in chart.rows:
        yield _line(row, _row(chart, row, cells), label)
        if row in quotas:
            yield _line(QUOTA, _periods(chart, quotas[row], cells), label)
    if chart.money:
        yield _line("money", _money(chart, cells), label)
    yield from _legend(chart, width)


def curve(points: Sequence[WhatIf], width: int = 80) -> Iterator[str]:
    """What a deadline costs: `●` as expected, `○` at the very most, `×` where no plan keeps it."""
    most = max((point.reserve.micro_usd for point in points if point.reserve is not None), default=0)
    first, last = points[0].deadline, points[-1].deadline
    label, height = len(str(Money(most))) + 1, HEIGHT if most else 1
    cells = max(width, NARROWEST) - label - 4
    span = (last - first).total_seconds()
    grid = [[" "] * cells for _ in range(height)]
    for point in points:
        column = round((point.deadline - first).total_seconds() / span * (cells - 1)) if span else 0
        for money, mark in ((point.reserve, "○"), (point.expected, "●")):
            grid[_level(money, most)][column] = mark if money is not None else "×"
    for level in range(height - 1, -1, -1):
        money = Money(most * level // (HEIGHT - 1))
        named = f"{money}" if level % 4 == 0 else ""
        yield f"{named:>{label}} ┤{''.join(grid[level])}".rstrip()
    yield f"{'':>{label}} └{'─' * cells}"
    left, right = moment_words(first), moment_words(last)
    if len(left) + len(right) >= cells:
        left, right = (f"{moment.astimezone():%a %H:%M}" for moment in (first, last))
    yield f"{'':>{label}}  {left}{right:>{cells - len(left)}}" if span else f"{'':>{label}}  {left}"
    missed = ", × no plan" if any(point.expected is None for point in points) else ""
    yield from textwrap.wrap(f"cost in USD against deadline: ● as expected, ○ at most{missed}", max(width, NARROWEST))


def _line(name: str, drawn: str, label: int) -> str:
    short = name if len(name) <= label else f"{name[: label - 1]}…"
    return f"{short:<{label}}  {drawn}".rstrip()


def _axis(chart: Chart, cells: int) -> str:
    """Round moments, each at its own place, as many as have room."""
    found = [" "] * cells
    days = is_in_days(chart.first, chart.last)
    free_from = 0
    for moment in ticks(chart.first, chart.last, max(2, cells // (8 if days else 11))):
        at, words = _cell(chart, moment, cells), f"{moment:%a %d}" if days else f"{moment:%a %H:%M}"
        if at >= free_from and at + len(words) + 1 <= cells:
            found[at : at + len(words) + 1] = f"╷{words}"
            free_from = at + len(words) + 2
    return "".join(found)


def _row(chart: Chart, row: str, cells: int) -> str:
    found = ["·"] * cells
    for bar in chart.bars:
        if bar.row == row:
            _draw(found, chart, bar)
    if chart.has_deadline and chart.deadline is not None:
        found[_cell(chart, chart.deadline, cells)] = DEADLINE
    return "".join(found)


def _periods(chart: Chart, quota: Quota, cells: int) -> str:
    """Of the quota, with each moment at which its hours begin anew."""
    found = [PERIOD] * cells
    for moment in quota.refreshes:
        found[_cell(chart, moment, cells)] = REFRESH
    return "".join(found)


def _draw(found: list[str], chart: Chart, bar: Bar) -> None:
    first = _cell(chart, bar.starts, len(found))
    last = len(found) - 1 if bar.ends is None else max(first, _cell(chart, bar.ends, len(found)) - 1)
    drawn = list((PAID_BAR if bar.is_paid else FREE_BAR) * (last - first + 1))
    words = str(bar.number) if bar.run is None else f"{bar.run[-6:]}.{bar.number}"
    if len(words) + 2 <= len(drawn):
        drawn[1 : 1 + len(words)] = words
    if bar.ends is None:
        drawn[-1] = "▶"
    found[first : last + 1] = drawn


def _money(chart: Chart, cells: int) -> str:
    """As expected, in eighths of all that it may cost: it rises over each paid segment."""
    most = max(1, chart.reserve.micro_usd) / 1e6
    moments = (chart.first + chart.span * ((n + 1) / cells) for n in range(cells))
    return "".join(LEVELS[round(chart.expected_by(moment) / most * (len(LEVELS) - 1))] for moment in moments)


def _legend(chart: Chart, width: int) -> Iterator[str]:
    kinds = {bar.is_paid for bar in chart.bars}
    words = [text for paid, text in ((False, f"{FREE_BAR} free"), (True, f"{PAID_BAR} paid")) if paid in kinds]
    if any(quota.refreshes for quota in chart.quotas):
        words.append(f"{REFRESH} hours begin anew")
    if chart.has_deadline:
        words.append(f"{DEADLINE} {deadline_words(chart)}")
    elif chart.deadline is not None:
        words.append(f"beyond: {deadline_words(chart)}")
    if chart.money:
        words.append(f"money: {chart.expected} expected, full height {chart.reserve} at most")
    words += [f"{quota.row}: {quota.words}" for quota in chart.quotas]
    yield from _wrapped(words, width)


def _wrapped(words: Sequence[str], width: int) -> Iterator[str]:
    """Each on one line where there is room for it; a long one on several."""
    line = ""
    for word in words:
        if line and len(line) + 3 + len(word) > width:
            yield line
            line = ""
        *full, rest = textwrap.wrap(word, width) if not line else [word]
        yield from full
        line = f"{line}   {rest}" if line else rest
    if line:
        yield line


def _cell(chart: Chart, moment: datetime, cells: int) -> int:
    return min(cells - 1, int(chart.share(moment) * cells))


def _level(money: Money | None, most: int) -> int:
    return 0 if money is None or not most else round(money.micro_usd / most * (HEIGHT - 1))
