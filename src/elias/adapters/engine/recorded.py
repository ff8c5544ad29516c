"""What a step answered or raised, as JSON: so that a replay sees exactly what the first time saw."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping
from typing import Any

from dbos import Serializer

from elias.errors import EliasError

_ERROR = "$error"


class JsonSerializer(Serializer):
    """In the place of DBOS's pickle, which would run what it reads."""

    def name(self) -> str:
        return "elias.json/1"

    def serialize(self, data: Any) -> str:
        plain = {_ERROR: error_record(data)} if isinstance(data, Exception) else data
        return json.dumps(plain, separators=(",", ":"), allow_nan=False)

    def deserialize(self, serialized_data: str) -> Any:
        plain = json.loads(serialized_data)
        return from_error_record(plain[_ERROR]) if isinstance(plain, dict) and _ERROR in plain else plain


def outcome_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Its answer or its error, as a record. An answer that is not JSON is an error as well: TypeError or ValueError."""
    try:
        answer = function(*arguments)
        return {"answer": json.loads(json.dumps(answer, allow_nan=False))}
    except Exception as error:  # noqa: BLE001  # not swallowed: it is recorded, and raised in the workflow
        return {"error": error_record(error)}


def replay(outcome: Mapping[str, Any]) -> Any:
    """The answer; or raises the error."""
    if "error" in outcome:
        raise from_error_record(outcome["error"])
    return outcome["answer"]


def error_record(error: Exception) -> dict[str, Any]:
    """An EliasError in full, any other by its arguments."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if isinstance(error, EliasError):
        said = {"what": error.what, "fix": error.fix, "kept": error.kept}
        more = {key: value for key, value in vars(error).items() if key not in said and _is_json(value)}
        return {"elias": names[: names.index("EliasError") + 1], **said, "more": more}
    arguments = list(error.args) if _is_json(error.args) else [str(error)]
    return {"python": names[0], "arguments": arguments, "text": str(error)}


def from_error_record(record: Mapping[str, Any]) -> Exception:
    """Of the same class where it is known here, else of the nearest class above; what no class fits is RuntimeError."""
    if "elias" in record:
        error = _blank(_elias_class(record["elias"]))
        EliasError.__init__(error, record["what"], fix=record["fix"], kept=record["kept"])
        vars(error).update(record["more"])
        return error
    kind = getattr(builtins, record["python"], None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(*record["arguments"])
        except TypeError:
            return RuntimeError(f"{record['python']}: {record['text']}")
    return RuntimeError(f"{record['python']}: {record['text']}")


def _blank(kind: type[EliasError]) -> EliasError:
    """Without its own `__init__`, which may take other arguments."""
    return kind.__new__(kind)


def _elias_class(names: list[str]) -> type[EliasError]:
    known = {EliasError.__name__: EliasError}
    fresh = [EliasError]
    while fresh:
        fresh = [below for kind in fresh for below in kind.__subclasses__()]
        known.update({kind.__name__: kind for kind in fresh})
    return next(known[name] for name in names if name in known)


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
