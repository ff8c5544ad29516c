"""`elias demo kaggle|sagemaker|hybrid`: a whole strategy against emulated services; every line says so."""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from elias.cli.output import Json, emit_json
from elias.errors import InputError

app = typer.Typer(add_completion=False, help="Shows a strategy without an account.")
DEMOS = ("kaggle", "sagemaker", "hybrid")


@app.command()
def demo(
    what: Annotated[str, typer.Argument(help="Which: kaggle, sagemaker or hybrid.")] = "kaggle",
    base: Annotated[str, typer.Option(help="tiny or starter.")] = "tiny",
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps.")] = 8,
    home: Annotated[Path | None, typer.Option(help="Kept afterwards.  [default: a temporary folder]")] = None,
    json: Json = False,
) -> None:
    """From captured code to a verified model: for real, but on an emulated Kaggle, SageMaker, or both."""
    if what not in DEMOS:
        raise InputError(f"there is no demo called {what!r}", fix=f"elias demo WHICH, one of: {', '.join(DEMOS)}")
    from elias.cli.demo_hybrid import on_all
    from elias.cli.demo_kaggle import on_kaggle
    from elias.cli.demo_sagemaker import on_sagemaker
    from elias.cli.demo_walk import Training

    walk = {"kaggle": on_kaggle, "sagemaker": on_sagemaker, "hybrid": on_all}[what]
    with redirect_stdout(sys.stderr if json else sys.stdout), tempfile.TemporaryDirectory(prefix="elias-demo-") as own:
        place = (home or Path(own)).absolute()
        (place / "node").mkdir(parents=True, exist_ok=True)
        found = walk(place, Training(base=base, steps=steps))
    if json:
        emit_json({"emulated": True, **found})
