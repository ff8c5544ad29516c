"""Keeps the door for workers open: by one process of the node at a time, in a thread of its own.

serve.lock     held by the process that answers
door.json      since when it has been open without a break, and when that was last written down
worker.pyz     the worker's program
"""

from __future__ import annotations

import fcntl
import json
import logging
import socket
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.adapters.backends.worker.inbox import Inbox
from elias.adapters.backends.worker.register import Register
from elias.adapters.backends.worker.settings import WorkerSettings
from elias.adapters.listener import listening_socket
from elias.errors import MissingPackage, PortInUse
from elias.ports.backend import BackendContext
from elias.units import instant, rfc3339
from elias_trainer.contract import canonical_json, write_whole

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger("elias.worker")

BEAT_S = 2.0
BREAK = timedelta(seconds=15)
"""Without a beat for so long the door was shut, or this machine asleep: no worker was silent meanwhile."""
ENDS_WITHIN_S = 5.0


class Door:
    def __init__(self, context: BackendContext, settings: WorkerSettings, inbox: Inbox, register: Register) -> None:
        self._context, self._settings = context, settings
        self._inbox, self._register = inbox, register
        self._home = context.home
        self._lock: IO[str] | None = None
        self._server: uvicorn.Server | None = None
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._only_one, self._making = threading.Lock(), threading.Lock()
        self._made: Path | None = None

    def open(self) -> bool:
        """Whether this process answers now, or did before; not while another one does. Raises UserErrors."""
        with self._only_one:
            if self._server is not None:
                return True
            self._closing = threading.Event()
            self._home.mkdir(parents=True, exist_ok=True)
            lock = (self._home / "serve.lock").open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            try:
                self._serve()
            except BaseException:
                lock.close()
                raise
            self._lock = lock
            return True

    def open_since(self) -> datetime | None:
        """None while no process keeps it open."""
        try:
            found = json.loads((self._home / "door.json").read_bytes())
        except FileNotFoundError:
            return None
        is_open = self._context.clock.now() - instant(found["beat"]) < BREAK
        return instant(found["since"]) if is_open else None

    def close(self) -> None:
        """Of no effect where this process has not opened it; it may be opened again."""
        with self._only_one:
            if self._server is None or self._lock is None:
                return
            self._closing.set()
            self._server.should_exit = True
            for thread in self._threads:
                thread.join(ENDS_WITHIN_S)
            self._lock.close()
            self._server = self._lock = None
            self._threads = []

    def _serve(self) -> None:
        try:
            import uvicorn

            from elias.adapters.backends.worker.service import Service
        except ModuleNotFoundError as error:
            what = f"the door for workers needs the package {error.name!r}"
            raise MissingPackage(what, fix="pip install 'elias-node[node]'") from error
        service = Service(
            node=self._context.node,
            inbox=self._inbox,
            register=self._register,
            program=self._program,
            is_closing=self._closing.is_set,
        )
        listener = self._bind()
        server = uvicorn.Server(
            uvicorn.Config(
                service.app(),
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="off",
                timeout_graceful_shutdown=1,
                timeout_keep_alive=30,
            )
        )
        self._beat(is_first=True)
        for target, arguments in ((server.run, ([listener],)), (self._keep_beating, ())):
            thread = threading.Thread(target=target, args=arguments, name="door for workers", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._server = server
        log.info("worker.door_open url=http://%s:%s", *listener.getsockname()[:2])

    def _program(self) -> Path:
        """Made with the first question for it."""
        with self._making:
            if self._made is None:
                path = self._home / "worker.pyz"
                write_trainer_archive(path)  # written anew: its sources may have changed
                self._made = path
            return self._made

    def _bind(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        try:
            return listening_socket(host, port)
        except OSError as error:
            table = f"[backends.{self._context.name}]"
            raise PortInUse(
                f"the door for workers cannot listen on {host}:{port}: {error.strerror}",
                fix=f"set port or host under {table}",
            ) from error

    def _keep_beating(self) -> None:
        closing = self._closing
        while not closing.wait(BEAT_S):
            try:
                self._beat()
            except OSError as error:  # of a full disk: workers count as not heard of, and nothing else
                log.warning("worker.beat_failed why=%s", error)

    def _beat(self, *, is_first: bool = False) -> None:
        now, since = self._context.clock.now(), None if is_first else self.open_since()
        write_whole(self._home / "door.json", canonical_json({"since": rfc3339(since or now), "beat": rfc3339(now)}))
