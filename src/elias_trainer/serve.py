"""The reference engine's server: OpenAI's chat and completion calls over transformers and PEFT, on a loopback port.

    ELIAS_ENGINE_KEY=… python -m elias_trainer serve --base REF [--adapter DIR] [--cache DIR] --port N

It is slow and right: what a faster engine answers is compared with it, and it serves what no other engine can.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elias_trainer.contract import BaseModel, Digest
from elias_trainer.failures import Refusal, exit_code
from elias_trainer.openai_form import Answer, BadRequest, Question, Spoken, read_question

if TYPE_CHECKING:
    from elias_trainer.speak import Voice

KEY_VARIABLE = "ELIAS_ENGINE_KEY"
_LARGEST_BODY = 8 * 1024 * 1024
_IDLE_S = 60


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    key = os.environ.pop(KEY_VARIABLE, "")
    if not key:
        print(f"error: {KEY_VARIABLE} is not set\n  fix: give it a long random text; clients send it", file=sys.stderr)
        return 2
    import torch

    from elias_trainer.speak import load_voice

    torch.set_num_threads(options.threads)
    digest = Digest(options.digest) if options.digest else None
    base = BaseModel(reference=options.base, digest=digest, allow_code=options.allow_code)
    try:
        voice = load_voice(base, options.adapter, options.cache)
    except Refusal as refusal:
        print(f"error: {refusal.failure.message}\n  fix: {refusal.failure.fix}", file=sys.stderr)
        return exit_code(refusal.failure)
    server = Server(voice, key=key, name=options.name or options.base, port=options.port)
    url = f"http://127.0.0.1:{server.server_port}"
    if options.ready_fd is None:
        print(f"answering at {url}", file=sys.stderr)
    else:
        with os.fdopen(options.ready_fd, "w") as ready:
            print(json.dumps({"url": url}), file=ready)
    server.serve_forever()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elias_trainer serve", description="Serve a base and an adapter.")
    parser.add_argument("--base", required=True)
    parser.add_argument("--digest", help="what the base's digest must be")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--name", help="what /v1/models calls it")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--allow-code", action="store_true")
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, voice: Voice, *, key: str, name: str, port: int) -> None:
        self.voice, self.key, self.name = voice, key, name
        super().__init__(("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    server: Server

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200, {"status": "ok"})
        elif self._is_allowed():
            if self.path == "/v1/models":
                model = {"id": self.server.name, "object": "model", "owned_by": "elias"}
                self._json(200, {"object": "list", "data": [model]})
            else:
                self._error(404, f"there is no {self.path} here")

    def do_POST(self) -> None:
        is_chat = self.path == "/v1/chat/completions"
        if not self._is_allowed():
            return
        if not is_chat and self.path != "/v1/completions":
            self._error(404, f"there is no {self.path} here")
            return
        try:
            question = read_question(self._body(), self.server.voice, is_chat=is_chat)
        except BadRequest as error:
            self._error(400, str(error))
            return
        try:
            self._answer(question)
        except ConnectionError:
            self.close_connection = True
        except RuntimeError as error:
            self.close_connection = True
            self._error(500, f"the model failed: {str(error).splitlines()[0]}")

    def _answer(self, question: Question) -> None:
        spoken = Spoken(prompt_tokens=len(question.prompt))
        answer = Answer(name=self.server.name, is_chat=question.is_chat, spoken=spoken)
        pieces = self._while_wanted(self.server.voice.speak(question.prompt, question.wanted, spoken), spoken)
        if not question.stream:
            self._json(200, answer.whole("".join(pieces)))
            return
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.send_header("Transfer-Encoding", "chunked")  # so that a cut-off answer is seen to be one
        self.end_headers()
        for line in answer.lines(pieces, with_usage=question.with_usage):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _while_wanted(self, pieces: Iterator[str], spoken: Spoken) -> Iterator[str]:
        """Ends the answer when the client has hung up, so that the next one need not wait for it."""
        for piece in pieces:
            if self._hung_up():
                spoken.gone.set()
                raise ConnectionAbortedError
            yield piece

    def _hung_up(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _is_allowed(self) -> bool:
        sent = self.headers.get("Authorization", "").encode()
        if hmac.compare_digest(sent, f"Bearer {self.server.key}".encode()):
            return True
        self.close_connection = True
        self._error(401, "the API key is missing or wrong")
        return False

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            self.close_connection = True
            raise BadRequest(f"a body of at most {_LARGEST_BODY} bytes with its Content-Length is needed")
        try:
            return json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise BadRequest(f"the body is not JSON: {error}") from error

    def _error(self, status: int, message: str) -> None:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self._json(status, {"error": {"message": message, "type": kind, "param": None, "code": None}})

    def _json(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
