"""Requests held against botocore's own service model, which boto3 itself does only in part (no patterns, no enums)."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import ServiceModel, Shape

from elias.testing.sagemaker_emulator.answers import CallError

SERVICES = {
    "SageMaker": "sagemaker",
    "AWSPriceListService": "pricing",
    "ServiceQuotasV20190624": "service-quotas",
    "AWSInsightsIndexService": "ce",
}
"""What stands before the dot in `X-Amz-Target`, and botocore's name for it."""

WIRE_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
}
"""What JSON makes of the model's types; numbers for all others."""


def check(target: str, operation: str, body: dict[str, Any]) -> None:
    """Raises CallError with every way in which the body departs from the model, in AWS's words."""
    shape = model(target).operation_model(operation).input_shape
    found = list(_problems(shape, body, "")) if shape is not None else []
    if found:
        plural = "error" if len(found) == 1 else "errors"
        raise CallError("ValidationException", f"{len(found)} validation {plural} detected: {'; '.join(found)}")


@functools.cache
def model(target: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(SERVICES[target])


def _problems(shape: Shape, value: Any, at: str) -> Iterator[str]:
    if not _is_of(shape.type_name, value):
        yield f"Value {value!r} at '{at}' failed to satisfy constraint: Member must be of type {shape.type_name}"
    elif shape.type_name == "structure":
        yield from _structure_problems(shape, value, at)
    elif shape.type_name == "list":
        yield from _size_problems(shape, len(value), value, at)
        for index, item in enumerate(value):
            yield from _problems(shape.member, item, f"{at}.{index + 1}.member")
    elif shape.type_name == "map":
        yield from _size_problems(shape, len(value), value, at)
        for key, item in value.items():
            yield from _problems(shape.key, key, f"{at}.key")
            yield from _problems(shape.value, item, f"{at}.{key}")
    elif shape.type_name == "string":
        yield from _string_problems(shape, value, at)
    elif shape.type_name in ("integer", "long"):
        yield from _range_problems(shape, value, at)


def _is_of(kind: str, value: Any) -> bool:
    """An instant is a number on the wire; a bool is no number."""
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, WIRE_TYPES.get(kind, (int, float)))


def _structure_problems(shape: Any, value: dict[str, Any], at: str) -> Iterator[str]:
    before = f"{at}." if at else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{before}{_camel(name)}' failed to satisfy constraint: Member must not be null"
    for name, item in value.items():
        if name not in shape.members:
            yield f"Member '{before}{name}' is not known to {shape.name}"
        elif item is not None:
            yield from _problems(shape.members[name], item, f"{before}{_camel(name)}")


def _string_problems(shape: Any, value: str, at: str) -> Iterator[str]:
    failed = f"Value '{value}' at '{at}' failed to satisfy constraint: Member must"
    if shape.enum and value not in shape.enum:
        yield f"{failed} satisfy enum value set: [{', '.join(shape.enum)}]"
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield f"{failed} satisfy regular expression pattern: {pattern}"
    yield from _size_problems(shape, len(value), value, at)


def _size_problems(shape: Any, size: int, value: Any, at: str) -> Iterator[str]:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
    failed = f"Value '{value}' at '{at}' failed to satisfy constraint: Member must have length"
    if size < least:
        yield f"{failed} greater than or equal to {least}"
    if most is not None and size > most:
        yield f"{failed} less than or equal to {most}"


def _range_problems(shape: Any, value: int, at: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    failed = f"Value '{value}' at '{at}' failed to satisfy constraint: Member must have value"
    if least is not None and value < least:
        yield f"{failed} greater than or equal to {least}"
    if most is not None and value > most:
        yield f"{failed} less than or equal to {most}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The models' patterns are Java's: classes of characters by Unicode category, in or out of brackets."""
    plain = pattern.replace(r"\p{Alnum}", "A-Za-z0-9")
    return re.compile(re.sub(r"\\p\{([LMNPSZ])\}", lambda found: _category(found.group(1)), plain))


@functools.cache
def _category(letter: str) -> str:
    """The inside of a bracket with every character whose category begins so, of the basic plane."""
    members = (chr(code) for code in range(0x10000) if unicodedata.category(chr(code))[0] == letter)
    return "".join(re.escape(member) for member in members)


def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]
