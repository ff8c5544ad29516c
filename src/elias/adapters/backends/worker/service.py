"""The door for workers: what they may ask over HTTP. Each sees its own segment and nothing else of the node.

GET  /worker.pyz                           the worker's program; the trainer's own archive
POST /join                                 a token, once, for a worker's credential
POST /work                                 long poll for a segment
GET  /segments/{key}/parcel/{name}         with Range
POST /segments/{key}/report                events and log so far; says what is wanted, renews the lease
GET, PUT /segments/{key}/outbox/{sha256}   how much of an output is here; the next chunk of it
POST /segments/{key}/outbox                the list of what is whole
POST /leave
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from elias.adapters.backends.found_machine import accelerator_of
from elias.adapters.backends.output import read_json
from elias.adapters.backends.worker.fitness import lacks
from elias.adapters.backends.worker.inbox import Chunk, Inbox, NotYours, TooMuch
from elias.adapters.backends.worker.register import Register
from elias.errors import DigestMismatch, EliasError

log = logging.getLogger("elias.worker")

MARK = {"Elias-Worker": "1", "Cache-Control": "no-store"}
LARGEST_BODY = 4 << 20
LONGEST_WAIT_S = 30.0
LOOK_EVERY_S = 0.25


class Gpu(BaseModel):
    name: str = Field(max_length=200)
    memory: int = Field(gt=0)


class MachineBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=200)
    python: str = Field(max_length=50)
    is_old: bool
    cores: int = Field(gt=0)
    memory: int = Field(gt=0)
    disk_free: int
    gpus: list[Gpu] = Field(max_length=64)
    lacks: list[str] = Field(max_length=64)
    is_private: bool
    recipient: str | None = Field(max_length=200)


class JoinBody(BaseModel):
    token: str = Field(max_length=200)
    worker: str = Field(max_length=50)
    proof: str = Field(max_length=64)
    machine: MachineBody


class WorkBody(BaseModel):
    machine: MachineBody
    wait_s: float = Field(ge=0)


class Tail(BaseModel):
    begin: int = Field(ge=0, alias="from")
    text: str


class ReportBody(BaseModel):
    state: str
    code: int | str | None
    problem: str | None = Field(max_length=1000)
    events: Tail
    log: Tail


class BoxBody(BaseModel):
    box: str


class Refusal(Exception):
    def __init__(self, status: int, what: str, fix: str) -> None:
        super().__init__(what)
        self.status, self.fix = status, fix


@dataclass(kw_only=True)
class Service:
    """Its methods run in threads; what they know is in files."""

    node: str
    inbox: Inbox
    register: Register
    program: Callable[[], Path]
    """The trainer's archive, which is the worker's program too."""
    is_closing: Callable[[], bool]
    """Then no question is kept open any longer."""

    def app(self) -> Starlette:
        def post(path: str, answer: Callable[[str, Request, Any], Any], body: type[BaseModel]) -> Route:
            return Route(path, self._handler(answer, body), methods=["POST"])

        one = "/segments/{key}/outbox/{digest}"
        routes = [
            Route("/worker.pyz", self._program),
            Route("/join", self._join, methods=["POST"]),
            Route("/work", self._work, methods=["POST"]),
            post("/segments/{key}/report", self._report, ReportBody),
            post("/segments/{key}/outbox", self._publish, BoxBody),
            post("/leave", lambda worker, *_: self._leave(worker), BaseModel),
            Route("/segments/{key}/parcel/{name}", self._parcel),
            Route(one, self._has),
            Route(one, self._take, methods=["PUT"]),
        ]
        errors: Mapping[Any, Any] = {
            404: lambda *_: _refused(Refusal(404, "nothing of that name is here", "elias worker join URL TOKEN")),
            405: lambda *_: _refused(Refusal(405, "that is not asked like this", "elias worker join URL TOKEN")),
            500: lambda *_: _refused(Refusal(500, "this is a bug in ELIAS", "the node's log says more")),
            Refusal: lambda _, error: _refused(error),
            NotYours: lambda _, error: _refused(Refusal(404, str(error), "nothing: the worker takes the next one")),
            TooMuch: lambda _, error: _refused(Refusal(413, str(error), "raise most_gib on the node")),
            DigestMismatch: lambda _, error: _refused(Refusal(422, error.what, error.fix)),
            EliasError: lambda _, error: _refused(Refusal(400, error.what, error.fix)),
            OSError: lambda _, error: _refused(Refusal(507, f"the node's disk: {error}", "free some space there")),
            ClientDisconnect: lambda *_: Response(status_code=499),
        }
        return Starlette(routes=routes, exception_handlers=errors)

    # Before a worker is known

    async def _program(self, _: Request) -> Response:
        path = await run_in_threadpool(self.program)
        return FileResponse(path, headers=MARK, media_type="application/octet-stream")

    async def _join(self, request: Request) -> Response:
        body = _parsed(JoinBody, await _body(request))
        machine = body.machine.model_dump()
        why = await run_in_threadpool(self.register.join, body.token, body.worker, body.proof, machine)
        if why is not None:
            log.warning("worker.refused why=%s", why)
            raise Refusal(403, why, "make another: elias worker token")
        log.info("worker.joined worker=%s machine=%s", body.worker, body.machine.name)
        return JSONResponse({"node": self.node}, headers=MARK)

    # What a worker does

    async def _work(self, request: Request) -> Response:
        worker = await self._who(request)
        body = _parsed(WorkBody, await _body(request))
        until = time.monotonic() + min(body.wait_s, LONGEST_WAIT_S)
        while True:
            order = await run_in_threadpool(self._next, worker, body.machine.model_dump())
            if order is not None:
                return JSONResponse(order, headers=MARK)
            if time.monotonic() >= until or self.is_closing() or await request.is_disconnected():
                return Response(status_code=204, headers=MARK)
            await asyncio.sleep(LOOK_EVERY_S)

    def _next(self, worker: str, machine: Mapping[str, Any]) -> dict[str, Any] | None:
        if self.register.is_dismissed(worker):
            self.inbox.let_go(worker)
            self.register.drop(worker)
            raise Refusal(401, "the node wants this worker no more", "a new token, if it was a mistake")
        self.register.saw(worker, machine)
        folder = self.inbox.of_worker(worker)
        if folder is not None and (folder / "started").exists():
            self.inbox.let_go(worker)  # it knows nothing of it any more, or would not ask for another
            folder = None
        for waiting in [folder] if folder else self.inbox.under_way():
            order = read_json(waiting / "order.json")
            if order is None or (accelerator_of(machine), len(machine["gpus"])) != (
                order["accelerator"],
                order["gpus"],
            ):
                continue
            if lacks(machine, is_sealed=order["sealed"]) is not None:
                continue
            if waiting == folder or self.inbox.claim(waiting, worker, machine):
                return order | {"segment": waiting.name, "key": self._key(waiting, order, machine)}
        return None

    def _key(self, folder: Path, order: Mapping[str, Any], machine: Mapping[str, Any]) -> str | None:
        """The segment's key, sealed for this worker's own."""
        if not order["sealed"]:
            return None
        import pyrage

        try:
            recipient = pyrage.x25519.Recipient.from_str(str(machine["recipient"]))
        except pyrage.RecipientError as error:
            raise Refusal(400, f"that is no age recipient: {error}", "join again") from error
        return base64.b64encode(pyrage.encrypt((folder / "segment.key").read_bytes().strip(), [recipient])).decode()

    def _report(self, worker: str, request: Request, body: ReportBody) -> dict[str, Any]:
        self.register.saw(worker)
        answer = self.inbox.report(request.path_params["key"], worker, body.model_dump(by_alias=True))
        if answer["want"] == "go" and self.register.is_dismissed(worker):
            answer["want"] = "pause"
        return answer

    def _publish(self, worker: str, request: Request, body: BoxBody) -> dict[str, Any]:
        return {"missing": self.inbox.publish(request.path_params["key"], worker, body.box)}

    def _leave(self, worker: str) -> dict[str, Any]:
        self.inbox.let_go(worker)
        self.register.left(worker)
        return {}

    async def _parcel(self, request: Request) -> Response:
        worker, params = await self._who(request), request.path_params
        path = await run_in_threadpool(self.inbox.parcel_file, params["key"], worker, params["name"])
        return FileResponse(path, headers=MARK, media_type="application/octet-stream")

    async def _has(self, request: Request) -> Response:
        worker, params = await self._who(request), request.path_params
        size = _number(request, "Elias-Size")
        have = await run_in_threadpool(self.inbox.has_of, params["key"], worker, params["digest"], size)
        return JSONResponse({"have": have}, headers=MARK)

    async def _take(self, request: Request) -> Response:
        worker, params = await self._who(request), request.path_params
        chunk = Chunk(
            digest=params["digest"],
            begin=_number(request, "Elias-From"),
            size=_number(request, "Elias-Size"),
            data=await _body(request),
        )
        have, went_on = await run_in_threadpool(self.inbox.take, params["key"], worker, chunk)
        return JSONResponse({"have": have}, 200 if went_on else 409, headers=MARK)

    # Around it

    def _handler(
        self, answer: Callable[[str, Request, Any], Any], kind: type[BaseModel]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            worker = await self._who(request)
            body = _parsed(kind, await _body(request))
            return JSONResponse(await run_in_threadpool(answer, worker, request, body), headers=MARK)

        return handle

    async def _who(self, request: Request) -> str:
        kind, _, credential = request.headers.get("authorization", "").partition(" ")
        worker = await run_in_threadpool(self.register.who, credential) if kind == "Bearer" else None
        if worker is None:
            raise Refusal(401, "the node knows no such worker", "elias worker token there, then join again here")
        return worker


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > LARGEST_BODY:
            raise Refusal(413, "that is too much at once", "a worker of this node's own version sends less")
    return bytes(data)


def _parsed(kind: type[Any], data: bytes) -> Any:
    try:
        return kind.model_validate(json.loads(data))
    except (ValidationError, ValueError) as error:
        what = f"that is not what a worker says: {str(error).splitlines()[0]}"
        raise Refusal(400, what, "use a worker of this node's own version") from error


def _number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refusal(400, f"{header} is no number", "use a worker of this node's own version")
    return int(text)


def _refused(refusal: Refusal) -> Response:
    body = {"what": str(refusal), "fix": refusal.fix}
    return JSONResponse(body, refusal.status, headers=MARK)
