"""Nouns as JSON documents and back, without loss.

An instant is RFC 3339 text, a span whole microseconds, money whole micro-dollars. A field that is missing takes its
default, so that a noun may grow; one that is unknown is refused, since dropping it would lose data.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar, cast

from elias.units import Money, instant, rfc3339
from elias_trainer.contract import Digest

Noun = TypeVar("Noun")
MICROSECOND = timedelta(microseconds=1)


def to_document(noun: object) -> str:
    """One line of ASCII: PostgreSQL takes no NUL and no lone surrogate in text, the escapes of both it does."""
    return json.dumps(_plain(noun), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_document(kind: type[Noun], document: str) -> Noun:
    """Raises ValueError naming the field that does not belong or is missing."""
    return cast(Noun, _build(kind, json.loads(document), kind.__name__))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Money):
        return value.micro_usd
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return rfc3339(value)
    if isinstance(value, timedelta):
        return value // MICROSECOND
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    raise ValueError(f"{value!r} cannot be kept")


def _build(kind: Any, raw: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if raw is None else _build(next(a for a in arguments if a is not type(None)), raw, where)
    if origin is tuple:
        return tuple(_build(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(_typed(list, raw, where)))
    if origin is Mapping:
        return {k: _build(arguments[1], v, f"{where}.{k}") for k, v in _typed(dict, raw, where).items()}
    if kind in _SCALARS:
        read, written_as = _SCALARS[kind]
        return read(_typed(written_as, raw, where))
    if isinstance(kind, type) and issubclass(kind, (Digest, StrEnum)):
        return kind(_typed(str, raw, where))
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, _typed(dict, raw, where), where)
    return _typed(kind, raw, where)


_SCALARS: Mapping[Any, tuple[Any, Any]] = {
    Money: (Money, int),
    datetime: (instant, str),
    timedelta: (lambda microseconds: timedelta(microseconds=microseconds), int),
    float: (float, (int, float)),
}


def _build_dataclass(kind: Any, raw: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    if unknown := sorted(raw.keys() - hints.keys()):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    try:
        return kind(**{name: _build(hints[name], value, f"{where}.{name}") for name, value in raw.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _typed(kind: Any, raw: Any, where: str) -> Any:
    if not isinstance(raw, kind) or (isinstance(raw, bool) and kind is not bool):
        raise ValueError(f"{where}: {raw!r} is not what belongs here")
    return raw
