"""`elias model`: files, verdicts and deployments of what was trained."""

from __future__ import annotations

from importlib import import_module

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, verify, judge, deploy and roll back models.")
for _part in ("model_files", "model_judge", "model_deploy"):
    import_module(f"elias.cli.{_part}").add_to(app)
