"""Checks one setting as written by a person: type and range. Imports pydantic; `load` waits until it must."""

from __future__ import annotations

import dataclasses
import typing
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from elias.config.schema import Config
from elias.domain.label import Label
from elias.domain.profile import PROFILES
from elias.errors import ConfigError, InputError
from elias.units import Money, parse_span


def _span(raw: Any) -> Any:
    """Text such as `5m`; a bare number in the file is refused, because nobody could tell its unit."""
    if not isinstance(raw, str):
        raise ValueError("a span needs its unit")
    try:
        return parse_span(raw)
    except InputError as error:
        raise ValueError(error.what) from error


def _names(raw: Any) -> Any:
    if isinstance(raw, str):
        return tuple(name.strip() for name in raw.split(",") if name.strip())
    return tuple(raw) if isinstance(raw, list) else raw


def _label(raw: Any) -> Any:
    if raw not in list(Label):
        raise ValueError(f"a label is one of {', '.join(Label)}")
    return Label(raw)


def _postgres(url: str | None) -> str | None:
    if url is not None and not url.startswith(("postgresql://", "postgresql+psycopg://")):
        raise ValueError("it does not begin with postgresql://")
    return url


def _money(raw: Any) -> Any:
    """Text such as `20usd`, or `none`; a bare number is refused, because nobody could tell its currency."""
    if raw is None or isinstance(raw, Money) or raw == "none":
        return None if raw == "none" else raw
    if not isinstance(raw, str):
        raise ValueError("money is written as text, with its currency")
    try:
        return Money.parse(raw)
    except InputError as error:
        raise ValueError(error.what) from error


_Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
_Threads = Annotated[int, Field(ge=1)]
_Cap = Annotated[Any, BeforeValidator(_money)]


def _profile(name: Any) -> Any:
    if name not in PROFILES:
        raise ValueError(f"a profile is one of {', '.join(PROFILES)}")
    return name


RULES: dict[str, Any] = {
    "profile": Annotated[str, BeforeValidator(_profile)],
    "node.name": _Name,
    "node.host": Annotated[str, Field(min_length=1)],
    "node.port": Annotated[int, Field(ge=0, le=65535)],
    "store.url": Annotated[str | None, AfterValidator(_postgres)],
    "training.heldout_share": Annotated[float, Field(gt=0, lt=1)],
    "training.threads": _Threads | None,
    "budget.run": _Cap,
    "budget.day": _Cap,
    "budget.month": _Cap,
    "budget.account": _Cap,
    "judge.examples": Annotated[int, Field(ge=6)],
    "judge.functions": Annotated[int, Field(ge=1)],
    "judge.answer_tokens": Annotated[int, Field(ge=16)],
    "serving.threads": _Threads | None,
    "serving.queue_bound": Annotated[int, Field(ge=0)],
    "serving.canary": Annotated[str, Field(min_length=1)],
    "gate.rival": Literal["in_service", "base"],
    "gate.level": Annotated[float, Field(gt=0, lt=1)],
}
"""Where a setting is narrower than its type."""

EXAMPLES: dict[str, str] = {
    "profile": '"individual"',
    "node.name": '"attic"',
    "node.host": '"127.0.0.1"',
    "node.port": "4141",
    "store.url": '"postgresql://elias@db.example/elias"',
    "capture.label": '"private"',
    "training.base": '"starter"',
    "training.strategy": '"local"',
    "training.hybrid_without": '["local"]',
    "training.heldout_share": "0.1",
    "training.checkpoint_every": '"5m"',
    "training.lease": '"30s"',
    "training.allow_code": "false",
    "training.threads": "4",
    "training.on_battery": "false",
    "training.keep_free_hours": "true",
    "budget.run": '"20usd"',
    "budget.day": '"5usd"',
    "budget.month": '"50usd"',
    "budget.account": '"500usd"',
    "serving.engine": '"llamacpp"',
    "serving.threads": "4",
    "serving.canary": '"Say hello."',
    "serving.drain": '"30s"',
    "serving.silent_for": '"30s"',
    "serving.queue_bound": "2",
    "serving.latency_bound": '"10s"',
    "serving.calm_for": '"1m"',
    "judge.examples": "200",
    "judge.functions": "12",
    "judge.answer_tokens": "256",
    "gate.metric": '"heldout_loss"',
    "gate.rival": '"in_service"',
    "gate.level": "0.95",
    "gate.no_worse_in_any_stage": "true",
    "evaluators": '["heldout_loss", "doctests"]',
}
"""In TOML; one for each setting."""


def checked(name: str, raw: Any, where: str, *, is_text: bool) -> Any:
    """The value in its own type. Raises ConfigError with an example."""
    adapter = TypeAdapter[Any](_kind(name), config=ConfigDict(strict=not is_text, allow_inf_nan=False))
    try:
        return adapter.validate_python(raw)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {name} is {raw!r}: {why[:1].lower()}{why[1:]}", fix=_fix(name, where)) from error


def _kind(name: str) -> Any:
    if name in RULES:
        return RULES[name]
    section, _, key = name.partition(".")
    kind = typing.get_type_hints(Config)[section]
    if key and dataclasses.is_dataclass(kind):
        kind = typing.get_type_hints(kind)[key]
    special = {timedelta: _span, Label: _label, tuple[str, ...]: _names}
    return Annotated[kind, BeforeValidator(special[kind])] if kind in special else kind


def _fix(name: str, where: str) -> str:
    example, key = EXAMPLES[name], name.rpartition(".")[2]
    if where.startswith("--"):
        return f"write {where} {example}"
    if where.startswith("ELIAS_"):
        return f"export {where}={example.strip('[]')}"
    return f"write {key} = {example}"
