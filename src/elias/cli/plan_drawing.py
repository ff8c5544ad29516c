"""`--picture`: whether a plan is drawn, and as what."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from elias.cli.output import say
from elias.domain.plan import Plan, WhatIf

CHARACTERS = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    path: Path | None = None
    """Of the picture; None draws none."""
    in_characters: bool = False

    @classmethod
    def of(cls, picture: str | None, *, is_json: bool) -> Drawing:
        """Raises InputError, MissingPackage for a picture that could not be written."""
        if picture is None:
            return cls(in_characters=sys.stdout.isatty() and not is_json)
        if picture == CHARACTERS:
            return cls(in_characters=not is_json)
        from elias.cli.plan_picture import check_picture

        path = Path(picture).expanduser()
        check_picture(path)
        return cls(path=path)

    def plans(self, plans: Sequence[Plan], now: datetime) -> None:
        """One, or those of a queue; of no effect where nothing takes any of them."""
        taken = [plan for plan in plans if plan.segments]
        if not taken or not (self.path or self.in_characters):
            return
        from elias.cli.plan_chart import chart_of, title_of

        chart = chart_of(taken, now)
        if self.in_characters:
            from elias.cli.plan_text import gantt

            _print(gantt(chart, _width()))
        if self.path:
            from elias.cli.plan_picture import draw_gantt

            draw_gantt(chart, self.path, title_of(taken))
            say(f"drawn: {self.path}")

    def curve(self, points: Sequence[WhatIf]) -> None:
        if not points or not (self.path or self.in_characters):
            return
        if self.in_characters:
            from elias.cli.plan_text import curve

            _print(curve(points, _width()))
        if self.path:
            from elias.cli.plan_picture import draw_curve

            draw_curve(points, self.path, "What a deadline costs")
            say(f"drawn: {self.path}")


def _print(lines: Iterable[str]) -> None:
    print()
    for line in lines:
        print(line)


def _width() -> int:
    return shutil.get_terminal_size().columns
