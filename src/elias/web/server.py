"""The node's process: takes its lock and its port, serves until it is told to stop, leaves nothing behind."""

from __future__ import annotations

import logging
import signal
import socket

import uvicorn

from elias.adapters.listener import listening_socket
from elias.config import Config
from elias.errors import EliasError, PortInUse, UserError
from elias.web.app import make_app
from elias.web.door import is_loopback
from elias.wiring.node import announce, api_token, node_lock, open_node

log = logging.getLogger("elias.node")

_FINISH_WITHIN_S = 3
"""For requests under way when it stops."""


def serve_node(config: Config) -> None:
    """Returns after `elias down`, SIGTERM or Ctrl-C. Raises PortInUse, Refused for a second node, StoreError."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with node_lock(config.home), bind(config.node.host, config.node.port) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        with open_node(config, _reachable(url)) as node:
            token = api_token(config.home)
            app = make_app(node, token=token, is_local=is_loopback(config.node.host), stop=lambda: _stop(server))
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    ws="none",
                    lifespan="auto",
                    timeout_graceful_shutdown=_FINISH_WITHIN_S,
                )
            )
            # uvicorn raises a signal again once it has stopped; what is left to close must not be cut short by it
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: None)
            node.start()
            announce(config.home, _reachable(url))
            log.info("node.up: %s", url)
            server.run(sockets=[listener])
            log.info("node.stopping")
    log.info("node.down")


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortInUse naming the process where that is known."""
    try:
        return listening_socket(host, port)
    except OSError as error:
        raise _cannot_bind(host, port, error) from error


def _cannot_bind(host: str, port: int, error: OSError) -> EliasError:
    if isinstance(error, PermissionError):
        return UserError(f"port {port} is not yours to take", fix="choose one above 1023: elias up --port 4242")
    if isinstance(error, socket.gaierror):
        return UserError(f"{host!r} is no address of this machine", fix="set node.host to 127.0.0.1")
    owner = _owner(port)
    by = f" by {owner}" if owner else ""
    fix = f"stop it, or take another port: elias up --port {port + 1}"
    return PortInUse(f"port {port} is in use{by}", fix=fix)


def _owner(port: int) -> str | None:
    """Name and process id of whoever listens there; None when it belongs to another user."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


def _reachable(url: str) -> str:
    """Where this machine's own commands find it: a wildcard address is no destination."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
