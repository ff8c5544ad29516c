"""An inference engine that repeats the question: real sockets, real keys, no model; for tests of what serves one."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from elias.errors import EngineError
from elias.ports.inference import Endpoint, ModelToServe


class EchoEngine:
    """`failing`, `mute` and `dying` hold model names: start fails, canary empty, dead after its first answer."""

    def __init__(self, *, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        """Before each word of an answer."""
        self.may_speak = threading.Event()
        """While it is cleared, no further word of any answer is said."""
        self.may_speak.set()
        self.failing: set[str] = set()
        self.mute: set[str] = set()
        self.dying: set[str] = set()
        self.started: list[str] = []
        self.hung_up = threading.Event()
        """Set when a client left in the middle of an answer."""
        self._servers: dict[int, _Server] = {}
        self._count = 0

    def can_serve(self, model: ModelToServe) -> str | None:
        return "it is unknown" if model.base.reference == "unknown" else None

    def start(self, model: ModelToServe, logs: Path) -> Endpoint:
        self.started.append(model.name)
        if model.name in self.failing:
            raise EngineError(f"{model.name} does not start", fix="none: it is made to fail")
        server = _Server(self, model.name)
        self._count += 1
        self._servers[self._count] = server
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Endpoint(url=f"http://127.0.0.1:{server.server_port}", api_key=server.key, process=self._count)

    def is_alive(self, endpoint: Endpoint) -> bool:
        return endpoint.process in self._servers

    def stop(self, endpoint: Endpoint) -> None:
        server = self._servers.pop(endpoint.process, None)
        if server:
            server.end()

    kill = stop
    """As if the process had been killed: its connections break off at once."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, engine: EchoEngine, name: str) -> None:
        self.engine, self.name, self.key = engine, name, secrets.token_hex(8)
        self._connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is what the tests are about."""

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self._whole(401, {"error": {"message": "wrong key"}})
            return
        engine, name = self.server.engine, self.server.name
        asked = question["messages"][-1]["content"] if "messages" in question else question["prompt"]
        words = [] if name in engine.mute else [f"{name}:", *str(asked).split()]
        if question.get("stream"):
            self._stream(self._spoken(words), question["model"])
        else:
            text = " ".join(self._spoken(words))
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            self._whole(200, {"id": "echo", "object": "chat.completion", "created": 0, "model": question.get("model"),
                              "choices": [message]})  # fmt: skip
        if name in engine.dying:
            threading.Thread(target=self._die, daemon=True).start()

    def _spoken(self, words: list[str]) -> Iterator[str]:
        for word in words:
            time.sleep(self.server.engine.pause_s)
            self.server.engine.may_speak.wait()
            yield word

    def _stream(self, words: Iterator[str], model: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for word in words:
                choice = {"index": 0, "finish_reason": None, "delta": {"content": word + " "}}
                self._chunk({"id": "echo", "object": "chat.completion.chunk", "created": 0, "model": model,
                             "choices": [choice]})  # fmt: skip
            self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        except OSError:
            self.close_connection = True
            self.server.engine.hung_up.set()

    def _chunk(self, value: object) -> None:
        line = b"data: " + json.dumps(value).encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _whole(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _die(self) -> None:
        engine = self.server.engine
        for process, server in list(engine._servers.items()):
            if server is self.server:
                engine.kill(Endpoint(url="", api_key="", process=process))
