"""How the emulated AWS says no, in the three dialects that its clients read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from elias.testing.sagemaker_emulator.faults import Fault, FaultKind

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


class CallError(Exception):
    """An error of the emulated service, with its AWS code."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def json_answer(start: StartResponse, body: Any, status: int = 200) -> Iterable[bytes]:
    return _send(start, status, "application/x-amz-json-1.1", json.dumps(body))


def refusal(start: StartResponse, error: CallError, dialect: str) -> Iterable[bytes]:
    """`dialect` is `json`, `s3` or `query`."""
    message = str(error)
    if dialect == "json":
        return json_answer(start, {"__type": error.code, "message": message}, error.status)
    inner = f"<Code>{error.code}</Code><Message>{escape(message)}</Message>"
    if dialect == "query":
        inner = f"<Error><Type>Sender</Type>{inner}</Error>"
    outer = "Error" if dialect == "s3" else "ErrorResponse"
    return _send(start, error.status, "text/xml", f"<?xml version='1.0'?><{outer}>{inner}</{outer}>")


def expired(dialect: str) -> CallError:
    code = "ExpiredTokenException" if dialect == "json" else "ExpiredToken"
    status = 403 if dialect == "query" else 400
    return CallError(code, "The security token included in the request is expired", status)


def broken(fault: Fault, dialect: str) -> CallError | None:
    """What a call is answered with instead of being carried out; None for a fault that is not of that kind."""
    if fault.kind is FaultKind.EXPIRED_CREDENTIALS:
        return expired(dialect)
    if fault.kind is FaultKind.THROTTLED and dialect == "s3":
        return CallError("SlowDown", "Please reduce your request rate.", 503)
    if fault.kind is FaultKind.THROTTLED:
        return CallError("ThrottlingException", "Rate exceeded")
    if fault.kind is FaultKind.SERVER_ERROR:
        return CallError("InternalFailure", "emulated: the service failed", 500)
    return None


def _send(start: StartResponse, status: int, kind: str, text: str) -> Iterable[bytes]:
    data = text.encode()
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(data))),
        ("x-amzn-RequestId", str(uuid.uuid4())),
    ]
    start(f"{status} {'OK' if status == 200 else 'emulated'}", headers)
    return [data]
