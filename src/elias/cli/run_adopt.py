"""`elias run adopt`: brings home what was started by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from elias.cli.output import Json, emit_json, say


def add_to(app: typer.Typer) -> None:
    app.command("adopt")(adopt)


def adopt(
    address: Annotated[str, typer.Argument(help="Where it ran, such as kaggle://owner/slug.")], json: Json = False
) -> None:
    """Bring home, verified, what a notebook started by hand has trained for a run of this node."""
    from elias.config import load
    from elias.wiring.by_hand import adopt_work

    run = adopt_work(load(), address)
    if json:
        emit_json(run)
        return
    if run.artifact:
        say(f"the run is done; its model is {run.artifact.short}: elias model verify {run.artifact.short}")
    else:
        say(run.reason or "nothing there is newer than what the run has")
    print(run.id)
