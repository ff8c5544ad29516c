"""A worker led by hand, and a bad line to the node."""

import hashlib
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from elias_trainer.machine import describe
from tests.adapters.worker.conftest import Place


class Hand:
    """Speaks as a worker does, one call at a time."""

    def __init__(self, place: Place, url: str | None = None, token: str | None = None, *, opens: bool = False) -> None:
        """`opens` the door first, where nobody did yet."""
        if opens:
            place.made[-1].listen()
        secret = secrets.token_urlsafe(32)
        self.worker = f"w-{hashlib.sha256(secret.encode()).hexdigest()[:10]}"
        self.proof = hashlib.sha256(secret.encode()).hexdigest()
        self.machine = describe(place.folder) | {"is_private": True, "recipient": None}
        self.node = place.line(url)
        self.join(token or place.token())
        self.node.credential = f"{self.worker}.{secret}"

    def join(self, token: str) -> None:
        fields = {"token": token, "worker": self.worker, "proof": self.proof, "machine": self.machine}
        self.node.ask("/join", fields)

    def work(self) -> dict[str, Any] | None:
        return self.node.ask("/work", {"machine": self.machine, "wait_s": 0})


class BadLine:
    """Passes bytes on to the node, and breaks each connection off after so many in one direction."""

    def __init__(self, port: int, breaks_after: int | None = None) -> None:
        self._port, self._breaks_after = port, breaks_after
        self.seen = bytearray()
        self.breaks = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._port))
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self.seen += data
                passed += len(data)
                target.sendall(data)
                if self._breaks_after is not None and passed >= self._breaks_after:
                    self.breaks += 1
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def written_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
