"""The node's web application: OpenAI's API, the node's own, and one page; all behind the same door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from elias.web.api import api_routes
from elias.web.door import Door
from elias.web.gateway import Gateway, Limits
from elias.wiring.node import Node

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def make_app(
    node: Node, *, token: str, is_local: bool, stop: Callable[[], None], limits: Limits | None = None
) -> ASGIApp:
    """`is_local` is whether it listens on loopback alone; `stop` ends the node."""
    gateway = Gateway(node.service.route, limits, node.demand)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await gateway.close()

    routes = [
        Route("/", _page),
        Route("/health", _health),
        Route("/v1/models", gateway.models),
        Route("/v1/chat/completions", gateway.handle("/v1/chat/completions"), methods=["POST"]),
        Route("/v1/completions", gateway.handle("/v1/completions"), methods=["POST"]),
        *api_routes(node, stop),
    ]
    errors = {404: _not_found, 405: _not_found, 500: _bug}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)
    return Door(app=app, token=token, is_local=is_local)


async def _page(_: Request) -> Response:
    text = files("elias.web").joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_POLICY, "X-Frame-Options": "DENY"})


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _not_found(request: Request, _: Exception) -> Response:
    message = f"there is no {request.method} {request.url.path} here; docs/gateway.md lists what there is"
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
    return JSONResponse(body, 404)


async def _bug(_: Request, __: Exception) -> Response:
    message = "this is a bug in ELIAS; the node's log says more"
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
    return JSONResponse(body, 500)
