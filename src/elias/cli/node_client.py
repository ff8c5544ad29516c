"""How commands speak to the running node. Standard library only: `elias status` must answer in a blink."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from elias import errors
from elias.errors import EliasError, EngineError, UserError

ANSWER_WITHIN_S = 1200.0
"""A deployment may have to convert a model first."""
_NODE_FILE = "node.json"
_KEY_FILE = "api.key"


class NoNode(UserError):
    """Nothing listens where a node said it would be."""

    def __init__(self) -> None:
        super().__init__("no node is up", fix="elias up")

    @property
    def code(self) -> str:
        return "UserError"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeClient:
    url: str
    token: str
    process: int

    def get(self, path: str, *, within_s: float = 60.0) -> Any:
        return self._call("GET", path, None, within_s)

    def post(self, path: str, body: object, *, within_s: float = ANSWER_WITHIN_S) -> Any:
        return self._call("POST", path, body, within_s)

    def stream(self, path: str, body: object) -> Iterator[Any]:
        """The JSON of each server-sent event, as it comes. Raises EngineError."""
        with self._answer("POST", path, body, ANSWER_WITHIN_S) as answer:
            if answer.status != 200:
                raise _error_of(answer)
            for line in answer:
                text = line.decode("utf-8", errors="replace").strip()
                if not text.startswith("data: ") or text == "data: [DONE]":
                    continue
                event = json.loads(text.removeprefix("data: "))
                if "error" in event:
                    raise EngineError(event["error"]["message"], fix="ask again; `elias status` says more")
                yield event

    def _call(self, method: str, path: str, body: object, within_s: float) -> Any:
        with self._answer(method, path, body, within_s) as answer:
            if answer.status != 200:
                raise _error_of(answer)
            return json.loads(answer.read())

    @contextmanager
    def _answer(self, method: str, path: str, body: object, within_s: float) -> Iterator[http.client.HTTPResponse]:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=within_s)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            yield connection.getresponse()
        except ConnectionRefusedError as error:
            raise NoNode from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            what = f"the node at {self.url} broke off: {error or type(error).__name__}"
            raise EngineError(what, fix="elias status; the log is in the node's home, logs/node.log") from error
        finally:
            connection.close()


def node_home() -> Path:
    """The same home that the configuration finds, without reading one."""
    return Path(os.environ.get("ELIAS_HOME") or "~/.elias").expanduser()


def find_node(home: Path | None = None) -> NodeClient:
    """The node of this home, going by the file it left. Raises NoNode."""
    home = home or node_home()
    try:
        found = json.loads((home / _NODE_FILE).read_bytes())
        return NodeClient(url=found["url"], process=found["process"], token=_token(home))
    except (OSError, ValueError, KeyError) as error:
        raise NoNode from error


def _token(home: Path) -> str:
    try:
        return (home / _KEY_FILE).read_text().strip()
    except FileNotFoundError:
        return ""


def _error_of(answer: http.client.HTTPResponse) -> EliasError:
    """The error that the node raised, as if it had been raised here."""
    try:
        body = json.loads(answer.read())
    except ValueError:
        body = {}
    fix = "elias status; the log is in the node's home, logs/node.log"
    if isinstance(body.get("error"), dict):
        return EngineError(body["error"]["message"], fix=fix)
    kind = getattr(errors, str(body.get("error")), EngineError)
    if not (isinstance(kind, type) and issubclass(kind, EliasError)):
        kind = EngineError
    return kind(body.get("what", f"the node answered {answer.status}"), fix=body.get("fix", fix), kept=body.get("kept"))
