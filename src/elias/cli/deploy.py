"""`elias deploy`: short for `elias model deploy`."""

from __future__ import annotations

import typer

from elias.cli import model_deploy

app = typer.Typer(add_completion=False)
app.command(help="Put a model in service (short for `model deploy`).")(model_deploy.deploy)
