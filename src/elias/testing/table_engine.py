"""An inference engine on loopback that answers from a function: for tests of whatever talks to an engine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from elias.ports.inference import Endpoint, ModelToServe

Answers = Callable[[str, str], str]
"""From a contender's name and its prompt to what it says."""


class TableEngine:
    """An inference engine whose model is a function; everything else about it is real."""

    def __init__(self, answers: Answers, cannot: str | None = None) -> None:
        self._answers = answers
        self._cannot = cannot
        self._servers: dict[str, ThreadingHTTPServer] = {}
        self.served: list[str] = []

    def can_serve(self, model: ModelToServe) -> str | None:
        return self._cannot

    def start(self, model: ModelToServe, logs: Path) -> Endpoint:
        answers, key = self._answers, f"key-of-{model.name}"

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.headers["Authorization"] != f"Bearer {key}" or asked["temperature"] != 0:
                    self.send_error(401)
                    return
                said = answers(asked["model"], asked["messages"][-1]["content"])
                body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
                self.send_response(200 if said != "ERROR" else 500)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        self._servers[url] = server
        self.served.append(model.name)
        return Endpoint(url=url, api_key=key, process=os.getpid())

    def is_alive(self, endpoint: Endpoint) -> bool:
        return endpoint.url in self._servers

    def stop(self, endpoint: Endpoint) -> None:
        if server := self._servers.pop(endpoint.url, None):
            server.shutdown()
            server.server_close()

    @property
    def running(self) -> int:
        return len(self._servers)
