"""What every command uses to answer: JSON for programs, a table or lines for people."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from elias.units import Money, rfc3339

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, with the web API's fields.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def emit_json(value: object) -> None:
    print(json.dumps(as_json(value), ensure_ascii=False, indent=2))


def as_json(value: Any) -> Any:
    """Domain values as JSON: an instant in RFC 3339, a span in seconds, money in micro-dollars."""
    if isinstance(value, Money):
        return value.micro_usd
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(v) for v in value]
    return value


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on stdout; `empty` says what to type when there are no rows."""
    from rich.console import Console
    from rich.table import Table

    body = [[str(cell) for cell in row] for row in rows]
    if not body:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in body:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, soft_wrap=not sys.stdout.isatty()).print(table)


def say(line: str) -> None:
    """Progress, to stderr: stdout is the answer."""
    print(line, file=sys.stderr, flush=True)


def ask(question: str, *, yes: bool) -> None:
    """Go on only when the person agrees; raises typer.Abort otherwise, and off a terminal without --yes."""
    if not yes:
        typer.confirm(question, abort=True, err=True)
