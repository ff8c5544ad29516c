"""`elias export`: a model's files, verified, in a folder of one's own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from elias.cli.output import Json, emit_json

app = typer.Typer(add_completion=False)


class Format(StrEnum):
    ADAPTER = "adapter"
    """The files as they were trained, with their signature and receipt."""


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="`latest`, a digest or the beginning of one, or a model's folder.")],
    out: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.ADAPTER,
    json: Json = False,
) -> None:
    """Write a model's files to a folder; both ends are verified."""
    from elias.config import load
    from elias.wiring.attest import open_attest

    with open_attest(load()) as attest:
        found = attest.export(model, out.absolute())
    if json:
        emit_json({"digest": found.digest, "folder": found.folder, "format": form, "adapter": found.adapter})
        return
    print(found.folder)
    print(f"  adapter/  {', '.join(sorted(found.receipt.files))}")
    print("  elias model verify checks it anywhere; PEFT's from_pretrained takes the folder adapter/")
