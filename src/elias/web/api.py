"""The node's own API: what it does, and the few things that change it. Fields are those of `--json`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from elias.domain.fields import as_json
from elias.errors import EliasError, InputError
from elias.services.deploy import DeployRequest
from elias.services.eta import eta_of
from elias.wiring.node import Node

_STATUS = {2: 400, 3: 404, 4: 409, 5: 502}
"""Exit code -> HTTP status."""
_LARGEST_BODY = 64 * 1024

Answer = TypeVar("Answer")


class DeployBody(BaseModel):
    """Of POST /api/deploy."""

    model_config = ConfigDict(extra="forbid")

    artifact: str | None = None
    base: str | None = None
    engine: str | None = None
    force: bool = False


class NoBody(BaseModel):
    model_config = ConfigDict(extra="forbid")


Body = TypeVar("Body", bound=BaseModel)


def api_routes(node: Node, stop: Callable[[], None]) -> list[Route]:
    """`stop` ends the node, soon after it returned."""

    def deploy(body: DeployBody) -> object:
        request = DeployRequest(artifact=body.artifact, base=body.base, engine=body.engine, past_gate=body.force)
        return node.service.deploy(request)

    def down(_: NoBody) -> object:
        stop()
        return {"stopping": True}

    return [
        Route("/api/status", _get(lambda _: node.status())),
        Route("/api/degraded", _get(lambda _: node.status()["degraded"])),
        Route("/api/runs", _get(lambda _: [_run_line(node, run.id) for run in node.stores.runs.list()])),
        Route("/api/runs/{run}", _get(lambda request: _run_whole(node, request.path_params["run"]))),
        Route("/api/models", _get(lambda _: _models(node))),
        Route("/api/deployments", _get(lambda _: node.service.history())),
        Route("/api/deploy", _post(DeployBody, deploy), methods=["POST"]),
        Route("/api/rollback", _post(NoBody, lambda _: node.service.rollback()), methods=["POST"]),
        Route("/api/down", _post(NoBody, down), methods=["POST"]),
    ]


def error_response(error: EliasError) -> Response:
    body = {"error": error.code, "what": error.what, "kept": error.kept, "fix": error.fix}
    return JSONResponse(body, _STATUS.get(error.exit_code, 500))


def _get(answer: Callable[[Request], object]) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        return await _answered(lambda: answer(request))

    return handler


def _post(kind: type[Body], act: Callable[[Body], object]) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        try:
            body = await _body(request, kind)
        except EliasError as error:
            return error_response(error)
        return await _answered(lambda: act(body))

    return handler


async def _answered(act: Callable[[], object]) -> Response:
    """In a thread: stores and engines are not async."""
    try:
        return JSONResponse(as_json(await run_in_threadpool(act)))
    except EliasError as error:
        return error_response(error)


async def _body(request: Request, kind: type[Body]) -> Body:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _LARGEST_BODY:
            raise InputError("the request is too large", fix=f"send at most {_LARGEST_BODY} bytes")
    try:
        return kind.model_validate_json(bytes(raw) or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InputError(f"{where}: {first['msg']}", fix="docs/gateway.md shows each request") from error


def _run_line(node: Node, run: str) -> object:
    """A run with how far it has come; the newest step of its newest segment that has one."""
    runs = node.stores.runs
    found = runs.get(run)
    progress = None
    for segment in reversed(runs.segments(run)):
        steps = [event for event in runs.events(segment.key) if event.get("kind") == "step"]
        if steps:
            progress = {name: steps[-1].get(name) for name in ("step", "step_total", "loss", "tokens_per_s", "eta_s")}
            break
    return {**as_json(found), "progress": progress, "eta": as_json(eta_of(found, runs, node.clock.now()))}


def _run_whole(node: Node, run: str) -> object:
    found = node.stores.runs.get(run)
    eta = eta_of(found, node.stores.runs, node.clock.now())
    return {"run": found, "segments": node.stores.runs.segments(found.id), "eta": eta}


def _models(node: Node) -> object:
    """Each artifact with its newest verdict, and whether it is in service."""
    current = node.service.route.current()
    in_service = current.deployment.artifact if current else None
    models = node.stores.models
    return [
        {
            **as_json(artifact),
            "in_service": artifact.digest == in_service,
            "verdict": next(iter(models.verdicts(artifact.digest)), None),
        }
        for artifact in models.artifacts()
    ]
