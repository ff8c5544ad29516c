"""Plug-ins: found by entry point, built-in ones too, imported on first use."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from elias.errors import MissingPackage, NotFound

GROUPS = ("elias.sources", "elias.backends", "elias.engines", "elias.evaluators")


def plugin_names(group: str) -> tuple[str, ...]:
    return tuple(sorted(point.name for point in entry_points(group=group)))


def find_plugin(group: str, name: str) -> EntryPoint:
    """Without importing it. Raises NotFound."""
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        names = ", ".join(plugin_names(group))
        raise NotFound(f"no {_kind(group)} is called {name!r}", fix=f"use one of: {names}")
    return found


def load_plugin(group: str, name: str) -> Any:
    """The factory behind `name`. Raises NotFound, or MissingPackage when its extra is not installed."""
    found = find_plugin(group, name)
    try:
        return found.load()
    except ModuleNotFoundError as error:
        extra = found.extras[0] if found.extras else "node"
        raise MissingPackage(
            f"the {_kind(group)} {name!r} needs the package {error.name!r}", fix=f"pip install 'elias-node[{extra}]'"
        ) from error


def _kind(group: str) -> str:
    return group.removeprefix("elias.").removesuffix("s")
