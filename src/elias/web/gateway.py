"""OpenAI's API in front of the engine in service: passes questions on, and answers back piece by piece.

A request that no byte was answered to is asked again of the next engine when its own dies; one under way stays with
its engine to the end, also when a new model takes over meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from elias.services.demand import DemandMeter
from elias.services.route import Route, Running

ALIAS = "elias"
"""The name of whatever is in service; the name of a model itself is answered only while it serves."""

_ENGINE_DIED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,  # it did not take the question, and may hang: whoever keeps it alive looks
    httpx.RemoteProtocolError,
    httpx.ReadError,
    httpx.WriteError,
)
_TRIES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    body_bytes: int = 8 * 1024 * 1024
    at_once: int = 8
    waiting: int = 64
    """More than these are sent away at once."""
    wait_s: float = 30.0
    """For a turn, and for an engine that is being started again."""
    silence_s: float = 600.0
    """Between two pieces of an answer."""
    retry_after_s: int = 2


class Sorry(Exception):
    """An answer in OpenAI's error form."""

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Gateway:
    """`handle(path)` is an ASGI application for one of the engine's calls."""

    def __init__(self, route: Route, limits: Limits | None = None, meter: DemandMeter | None = None) -> None:
        self._route, self._limits = route, limits or Limits()
        self._meter = meter or DemandMeter()
        self._turns = asyncio.Semaphore(self._limits.at_once)
        self.under_way = 0
        self.waiting = 0
        timeout = httpx.Timeout(10.0, read=self._limits.silence_s, pool=None)
        connections = httpx.Limits(max_connections=None, max_keepalive_connections=self._limits.at_once)
        self._client = httpx.AsyncClient(timeout=timeout, limits=connections, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    def handle(self, path: str) -> Call:
        return Call(self, path)

    async def models(self, request: Request) -> Response:
        running = self._route.current()
        names = [ALIAS] + ([running.name] if running else [])
        since = int(running.deployment.deployed_at.timestamp()) if running else 0
        cards = [{"id": name, "object": "model", "created": since, "owned_by": "elias"} for name in names]
        return JSONResponse({"object": "list", "data": cards})

    async def read(self, request: Request) -> dict[str, Any]:
        """The question. Raises Sorry."""
        length, chunks = 0, []
        async for chunk in request.stream():
            length += len(chunk)
            if length > self._limits.body_bytes:
                raise Sorry(413, f"the request is larger than {self._limits.body_bytes} bytes")
            chunks.append(chunk)
        try:
            body = json.loads(b"".join(chunks))
        except (ValueError, RecursionError) as error:
            raise Sorry(400, f"the request's body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise Sorry(400, "the request's body must be a JSON object")
        return body

    async def answer(self, path: str, body: dict[str, Any], send: Send) -> None:
        """Raises Sorry while nothing was sent yet."""
        with self._meter.request() as begun:

            async def told(message: Message) -> None:
                begun()
                await send(message)

            async with self._turn():
                for _ in range(_TRIES):
                    async with self._entered(body) as running:
                        if await self._relay(running, path, {**body, "model": running.name}, told):
                            return
        raise Sorry(503, "the engine ended while it answered, again and again; `elias status` says more")

    async def _relay(self, running: Running, path: str, body: dict[str, Any], send: Send) -> bool:
        """Whether something was answered; False when the engine died before it said a word."""
        has_begun = False
        key = {"Authorization": f"Bearer {running.endpoint.api_key}"}
        try:
            async with self._client.stream("POST", running.endpoint.url + path, json=body, headers=key) as upstream:
                async for piece in _pieces(upstream):
                    if not has_begun:
                        has_begun = True
                        await send(_head(upstream, running))
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if not has_begun:
                    await send(_head(upstream, running))
        except _ENGINE_DIED as error:
            self._route.report(running)
            if not has_begun:
                return False
            await send(_last_words(f"the engine ended in the middle of its answer: {type(error).__name__}"))
        except httpx.TimeoutException as error:
            if not has_begun:
                raise Sorry(504, f"the engine did not answer within {self._limits.silence_s:.0f} s") from error
            await send(_last_words("the engine fell silent in the middle of its answer"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._turns.locked() and self.waiting >= self._limits.waiting:
            raise Sorry(429, f"{self.waiting} requests wait already; try again in a moment", code="busy")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._limits.wait_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Sorry(429, "no turn came up in time; try again in a moment", code="busy") from error
        finally:
            self.waiting -= 1
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self._turns.release()

    @asynccontextmanager
    async def _entered(self, body: dict[str, Any]) -> AsyncIterator[Running]:
        deadline = time.monotonic() + self._limits.wait_s
        while (running := self._route.enter()) is None:
            if time.monotonic() > deadline:
                raise Sorry(503, "no model is in service at the moment; `elias status` says why", code="no_model")
            await asyncio.sleep(0.05)
        try:
            _check_name(body.get("model"), running)
            yield running
        finally:
            self._route.leave(running)

    def error(self, sorry: Sorry) -> Response:
        kind = "server_error" if sorry.status >= 500 else "invalid_request_error"
        body = {"error": {"message": sorry.message, "type": kind, "param": None, "code": sorry.code}}
        headers = {"Retry-After": str(self._limits.retry_after_s)} if sorry.status in (429, 503) else {}
        return JSONResponse(body, sorry.status, headers=headers)


class Call:
    """One of the engine's calls; ends the engine's work when the client hangs up."""

    def __init__(self, gateway: Gateway, path: str) -> None:
        self._gateway, self._path = gateway, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._gateway.read(Request(scope, receive))
            await _unless_gone(self._gateway.answer(self._path, body, send), receive)
        except Sorry as sorry:
            await self._gateway.error(sorry)(scope, receive, send)


async def _unless_gone(answering: Any, receive: Receive) -> None:
    """Run it to its end, or cancel it when the client has hung up."""
    work, gone = asyncio.ensure_future(answering), asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, gone):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Sorry):
                await task


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pieces(upstream: httpx.Response) -> AsyncIterator[bytes]:
    """A stream as it comes; anything else only when it is whole."""
    if upstream.headers.get("content-type", "").startswith("text/event-stream"):
        async for piece in upstream.aiter_raw():
            yield piece
    else:
        yield await upstream.aread()


def _head(upstream: httpx.Response, running: Running) -> Message:
    headers = [
        (b"content-type", upstream.headers.get("content-type", "application/json").encode()),
        (b"cache-control", b"no-store"),
        (b"x-elias-model", running.name.encode()),
        (b"x-elias-deployment", str(running.deployment.id).encode()),
    ]
    return {"type": "http.response.start", "status": upstream.status_code, "headers": headers}


def _last_words(message: str) -> Message:
    error = {"error": {"message": message, "type": "server_error", "param": None, "code": "engine_died"}}
    return {"type": "http.response.body", "body": f"data: {json.dumps(error)}\n\n".encode(), "more_body": True}


def _check_name(asked: Any, running: Running) -> None:
    if asked not in (None, "", ALIAS, running.name):
        message = f"the model {asked!r} is not in service; ask for {ALIAS!r} (now {running.name!r})"
        raise Sorry(404, message, code="model_not_found")
