"""`elias config`: each setting, its value, and where the value comes from."""

from __future__ import annotations

from typing import Any

import typer

from elias.cli.output import Json, emit_json, emit_table
from elias.domain.fields import as_json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Show each setting and where its value comes from.")


@app.command()
def show(json: Json = False) -> None:
    """Each setting with its value and its origin: default, file and line, environment variable, or flag."""
    from elias.config import load

    config = load()
    rows = [(name, _value(config, name), origin) for name, origin in config.origins.items()]
    if json:
        emit_json([{"name": n, "value": as_json(v), "origin": o} for n, v, o in rows])
        return
    emit_table(("setting", "value", "from"), [(n, _text(v), o) for n, v, o in rows], empty="no settings")


@app.command()
def path(json: Json = False) -> None:
    """Where the configuration file is, or would be."""
    from elias.config import load
    from elias.config.file import CONFIG_FILE

    file = load().home / CONFIG_FILE
    if json:
        emit_json({"path": file, "exists": file.exists()})
        return
    print(file)


def _value(config: Any, name: str) -> Any:
    from elias.config.load import masked

    first, *rest = name.split(".", 2)
    value = getattr(config, first)
    for key in rest:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    if any(word in name for word in ("secret", "password", "token", "key")) and value is not None:
        return "***"
    return masked(value) if name == "store.url" and value else value


def _text(value: Any) -> str:
    from datetime import timedelta

    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        minutes, seconds = divmod(value.total_seconds(), 60)
        return f"{minutes:g}m" if minutes and not seconds else f"{value.total_seconds():g}s"
    return ", ".join(value) if isinstance(value, tuple) else str(value)
