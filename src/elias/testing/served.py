"""An ASGI application on a socket, in a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

ENDS_WITHIN_S = 30.0
"""Far above what uvicorn takes to end connections by force."""


@contextmanager
def served(app: ASGIApp, listener: socket.socket, *, lifespan: Literal["off", "on"] = "off") -> Iterator[None]:
    """Answers while the block runs, and closes `listener`. A server that does not end is shown on standard error."""
    config = uvicorn.Config(
        app, interface="asgi3", lifespan=lifespan, log_config=None, ws="none", timeout_graceful_shutdown=1
    )
    server, loops = uvicorn.Server(config), []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="served", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(ENDS_WITHIN_S)
        if thread.is_alive():
            _show(loops[0])
        listener.close()


def _show(loop: asyncio.AbstractEventLoop) -> None:
    print(f"the server has not ended {ENDS_WITHIN_S:.0f} s after it was told to. What it waits for:", file=sys.stderr)
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=sys.stderr)
