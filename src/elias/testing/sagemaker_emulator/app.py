"""The HTTP face of the emulated SageMaker: our own calls, moto for the rest, and a way to run both in this process."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client

from elias.testing.emulated import Json
from elias.testing.sagemaker_emulator import validation
from elias.testing.sagemaker_emulator.answers import CallError, broken, expired, json_answer, refusal
from elias.testing.sagemaker_emulator.catalog import Catalog
from elias.testing.sagemaker_emulator.clients import OWN_KEY, Clients
from elias.testing.sagemaker_emulator.disk import Disk
from elias.testing.sagemaker_emulator.faults import JOB_FAULTS, FaultKind
from elias.testing.sagemaker_emulator.jobs import Jobs, is_about_a_job
from elias.testing.sagemaker_emulator.loopback import count_loopback_as_tls
from elias.testing.sagemaker_emulator.runner import Runners, recover

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

OUTLASTING = JOB_FAULTS | {FaultKind.RESOURCE_LIMIT}
"""Faults that CreateTrainingJob itself takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """What the front needs to know of a request."""

    name: str
    dialect: str
    key: str
    region: str
    target: str | None
    body: Json | None
    """Of a JSON call; the others' is not read here."""


class Front:
    """A WSGI application: `X-Amz-Target` decides who answers."""

    def __init__(self, disk: Disk, clients: Clients, runners: Runners) -> None:
        self._disk = disk
        self._catalog = Catalog(disk)
        self._jobs = Jobs(disk, self._catalog, clients, runners)
        self._moto = DomainDispatcherApplication(create_backend_app)
        count_loopback_as_tls()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        call = _call(environ)
        if call.key == OWN_KEY:
            return self._pass(environ, start)
        self._disk.record(call.name, call.body)
        if call.key in self._disk.settings.expired_keys:
            return refusal(start, expired(call.dialect), call.dialect)
        fault = self._disk.faults.take(call.name, lambda f: f.kind not in OUTLASTING)
        if fault and (error := broken(fault, call.dialect)):
            return refusal(start, error, call.dialect)
        if fault:
            b"".join(self._answer(call, environ, _unheard))
            return _hang_up(environ, start)
        return self._answer(call, environ, start)

    def reset_moto(self) -> None:
        Client(self._moto).post("/moto-api/reset")

    def _answer(self, call: _Call, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            handler = self._handler(call)
            if handler is None or call.body is None:
                return self._pass(environ, start)
            validation.check(call.target or "", call.name, call.body)
            return json_answer(start, handler(call.body, call.region))
        except CallError as error:
            return refusal(start, error, call.dialect)

    def _pass(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        answer: Iterable[bytes] = self._moto(environ, start)
        return answer

    def _handler(self, call: _Call) -> Callable[[Json, str], Json] | None:
        """None for what moto answers; raises CallError for what nobody does."""
        if call.target not in validation.SERVICES:
            return None
        if call.target == "SageMaker" and not is_about_a_job(call.name, call.body or {}):
            return None
        method = re.sub(r"(?<!^)([A-Z])", r"_\1", call.name).lower()
        handler = getattr(self._jobs if call.target == "SageMaker" else self._catalog, method, None)
        if handler is None or call.name not in validation.model(call.target).operation_names:
            raise CallError("UnknownOperationException", f"emulated: {call.name} is not emulated", 501)
        found: Callable[[Json, str], Json] = handler
        return found


class SageMakerEmulator:
    """The emulator in threads of this process: `with SageMakerEmulator(root) as emulated: emulated.url`.

    One at a time in a process: what moto holds is the process's. It is cleared when an emulator begins on another root.
    """

    _running = threading.Lock()
    _last_root: Path | None = None

    def __init__(self, root: Path, port: int = 0) -> None:
        self.disk = Disk(root)
        self._port = port

    def __enter__(self) -> Self:
        if not self._running.acquire(blocking=False):
            raise RuntimeError("an emulated SageMaker runs in this process already")
        recover(self.disk)
        listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._clients = Clients(self.url)
        self._runners = Runners(self.disk, self._clients)
        front = Front(self.disk, self._clients, self._runners)
        if SageMakerEmulator._last_root != self.disk.root.resolve():
            front.reset_moto()
            SageMakerEmulator._last_root = self.disk.root.resolve()
        self._server = make_server(
            "127.0.0.1", 0, front, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
        )
        listener.close()  # the server has its own copy, and nobody shall find the port taken when that one is closed
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runners.close()
        self._clients.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._running.release()


def serve(root: Path, port: int) -> None:
    """Until interrupted."""
    with SageMakerEmulator(root, port) as emulated:
        print(f"emulated SageMaker, S3, KMS, IAM, STS and Logs at {emulated.url}, state in {root}", flush=True)
        print("emulated: objects, keys and logs live in memory and end with this process", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("emulated SageMaker ends; jobs that run are ended with it", flush=True)


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Requests are in requests.jsonl; a fault of the emulator itself must be seen."""
        if type == "error":
            super().log(type, message, *args)


def _call(environ: WSGIEnvironment) -> _Call:
    signed = re.search(r"Credential=([^/,]+)/\d+/([^/,]+)/([^/,]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    key, region, service = signed.groups() if signed else ("", "us-east-1", "s3")
    target, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
    if operation:
        body = json.loads(_peek(environ) or b"{}")
        return _Call(name=operation, dialect="json", key=key, region=region, target=target, body=body)
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded") and service != "s3"
    if form:
        action = urllib.parse.parse_qs(_peek(environ).decode()).get("Action", [service])[0]
        return _Call(name=action, dialect="query", key=key, region=region, target=None, body=None)
    name = f"{service}.{environ['REQUEST_METHOD']}"
    return _Call(name=name, dialect="s3", key=key, region=region, target=None, body=None)


def _peek(environ: WSGIEnvironment) -> bytes:
    """The body, which whoever comes next can read again."""
    data: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(data)
    return data


def _unheard(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
    return lambda data: None


def _hang_up(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """The connection ends before a single byte of the answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    start("500 emulated", [("Content-Length", "0")])
    return []
