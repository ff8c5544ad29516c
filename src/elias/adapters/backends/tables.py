"""Reads a `[backends.<name>]` table as the user wrote it; what is wrong with it names the table and the setting."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from elias.errors import ConfigError, InputError
from elias.units import parse_span


def read_table(
    table: str, raw: Mapping[str, Any], settings: type, read: Callable[[str, Any, Any], Any]
) -> dict[str, Any]:
    """What was set of the dataclass `settings`, each through `read(name, value, default)`. Raises ConfigError."""
    known = {field.name: field.default for field in fields(settings)}
    if unknown := next((name for name in raw if name not in known), None):
        raise ConfigError(f"{table} has no setting {unknown!r}", fix=f"it knows: {', '.join(known)}")
    return {name: read(name, value, known[name]) for name, value in raw.items()}


def read_like_defaults(table: str, raw: Mapping[str, Any], settings: type, spans: Collection[str]) -> dict[str, Any]:
    """Each of the type of its default, text where that is None, a span of time where it is one of `spans`."""

    def read(name: str, value: Any, default: Any) -> Any:
        if name in spans:
            return read_span(table, name, value)
        wanted = str if default is None else type(default)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ConfigError(
                f"{table} {name} is {value!r}, not a {wanted.__name__}", fix=f"write it like: {name} = {default!r}"
            )
        return value

    return read_table(table, raw, settings, read)


def read_span(table: str, name: str, value: Any) -> timedelta:
    try:
        return parse_span(str(value))
    except InputError as error:
        raise ConfigError(f"{table} {name}: {error.what}", fix=error.fix) from error
