"""Plain JSON to frozen dataclasses, with nothing missing, unknown or of another type. Standard library only."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


def build(kind: Any, raw: Any, where: str) -> Any:
    """`raw` as a value of the type `kind`; raises ValueError naming the place, which starts with `where`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if raw is None else build(next(a for a in arguments if a is not type(None)), raw, where)
    if origin is tuple:
        return tuple(build(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(_typed(list, raw, where)))
    if origin is Mapping:
        return {k: build(arguments[1], v, f"{where}.{k}") for k, v in _typed(dict, raw, where).items()}
    if dataclasses.is_dataclass(kind):
        return _filled(kind, _typed(dict, raw, where), where)
    if kind is float:
        return float(_typed((int, float), raw, where))
    if isinstance(kind, type) and issubclass(kind, str) and kind is not str:
        try:
            return kind(_typed(str, raw, where))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return _typed(kind, raw, where)


def _filled(kind: Any, raw: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    if unknown := sorted(raw.keys() - hints.keys()):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    try:
        return kind(**{name: build(hints[name], value, f"{where}.{name}") for name, value in raw.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _typed(kind: type | tuple[type, ...], raw: Any, where: str) -> Any:
    if not isinstance(raw, kind) or (isinstance(raw, bool) and kind is not bool):
        raise ValueError(f"{where}: {raw!r} is not what belongs here")
    return raw
