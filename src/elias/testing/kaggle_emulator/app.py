"""The HTTP face of the emulated Kaggle, and a way to run it in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from elias.testing.emulated import read
from elias.testing.kaggle_emulator.datasets import CallError, Datasets, Json
from elias.testing.kaggle_emulator.disk import Disk
from elias.testing.kaggle_emulator.faults import Fault, FaultKind
from elias.testing.kaggle_emulator.kernels import Kernels
from elias.testing.served import served

TOKEN_USER = "tester"
"""Whom an access token belongs to; with a legacy key it is the key's user."""
BEFORE = {FaultKind.HTTP_429, FaultKind.HTTP_500, FaultKind.HTML, FaultKind.HANG, FaultKind.NOT_FOUND}


def build_app(disk: Disk, base_url: str) -> ASGIApp:
    """All calls of the official client, also with the absolute-form targets that a proxy setting makes."""
    face = _Face(disk, base_url)
    inner = Starlette(
        routes=[
            Route("/api/v1/kernels/logs/stream/{owner}/{slug}", face.logs),
            Route("/v1/kernels/logs/stream/{owner}/{slug}", face.logs),
            Route("/api/v1/{service}/{method}", face.call, methods=["POST"]),
            Route("/v1/{service}/{method}", face.call, methods=["POST"]),
            Route("/upload/{token}", face.upload, methods=["PUT"]),
            Route("/download/{path:path}", face.download),
            Route("/emulator/cancel/{owner}/{slug}", face.cancel_from_web, methods=["POST"]),
        ]
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith("http://"):
            scope["path"] = "/" + scope["path"].removeprefix("http://").partition("/")[2]
        await inner(scope, receive, send)

    return app


class _Face:
    def __init__(self, disk: Disk, base_url: str) -> None:
        self._disk = disk
        self._kernels = Kernels(disk, base_url)
        self._datasets = Datasets(disk, base_url)

    async def call(self, request: Request) -> Response:
        name = request.path_params["method"]
        body = json.loads(await request.body() or b"{}")
        self._disk.record(name, body)
        handler = self._handler(name)
        user = _user(request)
        if user is None:
            return _error(401, "Unauthenticated")
        if not self._disk.settings.accepts_keys:
            return _error(401, "Unauthenticated: the key was revoked")
        fault = self._disk.faults.take(name)
        if fault and fault.kind in BEFORE:
            return await _broken(fault)
        if handler is None:
            return _error(404, f"{name} is not emulated")
        try:
            answer = await run_in_threadpool(self._locked, handler, body, user, fault)
        except CallError as error:
            return _error(error.status, str(error))
        if fault and fault.kind is FaultKind.LOST_ANSWER:
            return _cut_off(b"", 1)
        return JSONResponse(answer)

    def _locked(
        self, handler: Callable[[Json, str, Fault | None], Json], body: Json, user: str, fault: Fault | None
    ) -> Json:
        with self._disk.lock:
            return handler(body, user, fault)

    def _handler(self, name: str) -> Callable[[Json, str, Fault | None], Json] | None:
        if name == "IntrospectToken":
            return lambda body, user, fault: {"active": True, "username": user, "userId": 1}
        method = re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
        return getattr(self._datasets, method, None) or getattr(self._kernels, method, None)

    async def upload(self, request: Request) -> Response:
        token = request.path_params["token"]
        self._disk.record("upload", {"content-range": request.headers.get("content-range", "")})
        blob = self._disk.root / "blobs" / f"{token}.bin"
        known = read(blob.with_suffix(".json"))
        fault = self._disk.faults.take("upload")
        if fault and fault.kind in BEFORE:
            return await _broken(fault)
        if known is None:
            return Response(status_code=404)
        place = request.headers.get("content-range", "")
        if place.startswith("bytes */"):
            have = blob.stat().st_size
            done = have == known["size"]
            return Response(
                status_code=200 if done else 308, headers={} if not have else {"Range": f"bytes=0-{have - 1}"}
            )
        first = int(place.split()[1].split("-")[0]) if place else 0
        with blob.open("r+b") as out:
            out.truncate(first)
            out.seek(first)
            async for chunk in request.stream():
                out.write(chunk[: len(chunk) // 2] if fault else chunk)
                if fault:
                    break
        if fault or blob.stat().st_size != known["size"]:
            return Response(status_code=503)
        return Response(status_code=200)

    async def download(self, request: Request) -> Response:
        owner, slug, _, number, name = request.path_params["path"].split("/", 4)
        self._disk.record("download", {"kernel": slug, "name": name})
        root = self._disk.kernel(owner, slug) / "versions" / number / "kaggle" / "working"
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file():
            return Response(status_code=404)
        fault = self._disk.faults.take("download")
        if fault and fault.kind is FaultKind.TRUNCATED:
            data = path.read_bytes()
            return _cut_off(data[: len(data) // 2], len(data))
        return await _broken(fault) if fault else FileResponse(path)

    async def logs(self, request: Request) -> Response:
        self._disk.record("logs", {"kernel": request.path_params["slug"]})
        fault = self._disk.faults.take("logs")
        if fault and fault.kind in BEFORE:
            return await _broken(fault)
        body = {"userName": request.path_params["owner"], "kernelSlug": request.path_params["slug"]}
        body["versionLabel"] = request.query_params.get("versionLabel", "")
        try:
            version = self._kernels.version(body, _user(request) or "")
        except CallError as error:
            return _error(error.status, str(error))
        if (read(version / "session.json") or {}).get("ended_at"):
            return JSONResponse(self._kernels.log(version))
        return StreamingResponse(self._live(version, fault), headers={"content-type": "text/event-stream"})

    async def _live(self, version: Path, fault: Fault | None) -> AsyncIterator[str]:
        sent, size, log = 0, -1, version / "log.jsonl"
        while True:
            ended = (read(version / "session.json") or {"ended_at": 1}).get("ended_at")
            if log.exists() and (now := log.stat().st_size) != size:
                lines, size = self._kernels.log(version), now
                for entry in lines[sent:]:
                    yield f"data: {json.dumps(entry, ensure_ascii=False)}\n\n"
                    if fault and fault.kind is FaultKind.TRUNCATED:
                        return
                sent = len(lines)
            if ended:
                yield "data: END_OF_LOG\n\n"
                return
            await asyncio.sleep(0.05)

    async def cancel_from_web(self, request: Request) -> Response:
        body = {"userName": request.path_params["owner"], "kernelSlug": request.path_params["slug"]}
        version = self._kernels.version(body, request.path_params["owner"])
        await run_in_threadpool(self._kernels.end, version, "CANCEL_ACKNOWLEDGED")
        return Response(status_code=204)


async def _broken(fault: Fault) -> Response:
    if fault.kind is FaultKind.HANG:
        await asyncio.sleep(fault.seconds)
        return _error(504, "emulated: no answer in time")
    if fault.kind is FaultKind.HTML:
        return HTMLResponse("<html><body>emulated: a web page where JSON belongs</body></html>")
    if fault.kind is FaultKind.HTTP_429:
        after = {"Retry-After": str(int(fault.seconds))}
        return JSONResponse({"code": 429, "message": "emulated: too many requests"}, 429, after)
    if fault.kind is FaultKind.NOT_FOUND:
        return _error(404, "emulated: not found")
    return _error(500, "emulated: internal error")


def _cut_off(data: bytes, promised: int) -> Response:
    """Fewer bytes than promised, then a closed connection."""

    async def short() -> AsyncIterator[bytes]:
        yield data

    return StreamingResponse(short(), headers={"content-length": str(promised), "content-type": "application/json"})


def _user(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        return base64.b64decode(value).decode().split(":")[0]
    return TOKEN_USER if scheme.lower() == "bearer" else None


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": status, "message": message}, status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """One more Kaggle behind the socket of another."""

    disk: Disk
    url: str


class KaggleEmulator:
    """The emulator in a thread of this process: `with KaggleEmulator(root) as emulated: emulated.url`."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self.disk = Disk(root)
        self._beside: dict[str, ASGIApp] = {}
        listener = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._own = build_app(self.disk, self.url)
        self._served = served(self._serve, listener)

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end_sessions(self.disk)
        self._served.__exit__(kind, error, trace)

    @contextmanager
    def beside(self, root: Path) -> Iterator[Beside]:
        """A Kaggle of its own at another URL, for a test that wants no server of its own."""
        name = f"kaggle{len(self._beside)}"
        made = Beside(disk=Disk(root), url=f"{self.url}/{name}")
        self._beside[name] = build_app(made.disk, made.url)
        try:
            yield made
        finally:
            _end_sessions(made.disk)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, _, rest = scope.get("path", "").removeprefix("/").partition("/")
        if name in self._beside:
            await self._beside[name]({**scope, "path": f"/{rest}"}, receive, send)
        else:
            await self._own(scope, receive, send)


def _end_sessions(disk: Disk) -> None:
    for version, session in disk.sessions():
        if not session.get("ended_at"):
            Kernels(disk, "").end(version, "CANCEL_ACKNOWLEDGED")


def serve(arguments: Any) -> None:
    """Until interrupted; `arguments` has `root` and `port`."""
    disk = Disk(Path(arguments.root))
    url = f"http://127.0.0.1:{arguments.port}"
    print(f"emulated Kaggle at {url}, state in {disk.root}", flush=True)
    uvicorn.run(build_app(disk, url), host="127.0.0.1", port=arguments.port, log_level="warning")
