"""Who may come in: checks before any handler runs, against other machines and against web pages in a local browser.

A page that the user happens to visit can send requests to 127.0.0.1. It names itself in `Origin`, and where it reached
us by rebinding its own name to 127.0.0.1, in `Host`; both are refused. See
https://developer.mozilla.org/en-US/docs/Glossary/CSRF and https://en.wikipedia.org/wiki/DNS_rebinding.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_SAFE_METHODS = ("GET", "HEAD")
_OPEN_PATHS = ("/", "/health")
"""A page and a sign of life, with nothing of the user's in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    app: ASGIApp
    token: str
    is_local: bool
    """Whether the node listens on loopback alone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, message = refusal
        kind = "authentication_error" if status == 401 else "permission_error"
        body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        await JSONResponse(body, status, headers=headers)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.is_local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, f"this node answers to 127.0.0.1 and localhost, not to {host!r}"
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return 403, f"pages of {origin} may not use this node"
        if self._needs_token(scope["method"], scope["path"]) and not self._has_token(headers):
            return 401, "send the token in the node's api.key file: Authorization: Bearer <token>"
        return None

    def _needs_token(self, method: str, path: str) -> bool:
        changes = path.startswith("/api/") and method not in _SAFE_METHODS
        return changes or (not self.is_local and path not in _OPEN_PATHS)

    def _has_token(self, headers: Headers) -> bool:
        sent = headers.get("authorization", "").encode()
        return hmac.compare_digest(sent, f"Bearer {self.token}".encode())


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
