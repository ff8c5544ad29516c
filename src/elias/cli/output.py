"""What every command uses to answer: JSON for programs, a table or lines for people."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from elias.domain.fields import as_json
from elias.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, with the web API's fields.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

WIDTH_OFF_A_TERMINAL = 200


def emit_json(value: object) -> None:
    print(json.dumps(as_json(value), ensure_ascii=False, indent=2))


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on stdout, with no spaces at the ends of lines; `empty` says what to type when there are no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    body = [[Text(str(cell)) for cell in row] for row in rows]
    if not body:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in body:
        table.add_row(*row)
    if sys.stdout.isatty():
        Console().print(table)
        return
    written = io.StringIO()
    Console(file=written, width=WIDTH_OFF_A_TERMINAL).print(table)
    print("\n".join(line.rstrip() for line in written.getvalue().splitlines()))


def say(line: str) -> None:
    """Progress, to stderr: stdout is the answer."""
    print(line, file=sys.stderr, flush=True)


def ask(question: str, *, yes: bool) -> None:
    """Go on only when the person agrees; raises typer.Abort otherwise, and UserError where nobody is there to ask."""
    if yes:
        return
    try:
        typer.confirm(question, abort=True, err=True)
    except typer.Abort as abort:
        if sys.stdin.isatty():
            raise
        raise UserError("nobody agreed to this", fix="add --yes to agree beforehand", kept="all as it was") from abort
