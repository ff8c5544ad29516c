"""`elias up`: the node, in the background, or here with --foreground."""

from __future__ import annotations

import json as jsonlib
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elias.cli.node_client import NoNode, find_node
from elias.cli.output import Json, emit_json, say
from elias.cli.status import status_lines
from elias.errors import ConfigError, EliasError, EngineError

if TYPE_CHECKING:
    from elias.config import Config

app = typer.Typer(add_completion=False)

_SHOW_AFTER_S = 2.0
_PATIENCE_S = 900.0
_LOG_FILE = "logs/node.log"


@app.command(help="Start the node: engine, API and gateway.")
def up(
    port: Annotated[int | None, typer.Option(help="Of the gateway; default 4141 or node.port.")] = None,
    foreground: Annotated[bool, typer.Option("--foreground/--detach", help="Stay here, until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    from elias.config import load

    config = load({} if port is None else {"node.port": str(port)})
    running = _running(config.home)
    if running is not None:
        say("the node is up already")
        _show(running, json=json)
        return
    if foreground:
        # by name: the command line and the web are siblings, and this one command becomes the server
        import_module("elias.web.server").serve_node(config)
        return
    _show(_detach(config, port), json=json)


def _running(home: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = find_node(home).get("/api/status")
    except NoNode:
        return None
    return found


def _detach(config: Config, port: int | None) -> dict[str, Any]:
    """Start it in a session of its own; its status once a model answers. Raises what the node raised."""
    log = config.home / _LOG_FILE
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        what = f"{config.home} cannot be this node's home: {error.strerror}"
        raise ConfigError(what, fix="set ELIAS_HOME to a folder that you can write to") from error
    words = ["up", "--foreground", "--json", *([] if port is None else ["--port", str(port)])]
    with log.open("ab") as stream:
        begin = stream.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from elias.cli import main; main()", *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    return _wait(config.home, process, log, begin)


def _wait(home: Path, process: subprocess.Popen[bytes], log: Path, begin: int) -> dict[str, Any]:
    began, told = time.monotonic(), ""
    while process.poll() is None:
        status = _heard(home)
        if status and status["in_service"]:
            return status
        if status and status["notes"] and not status["change"]:
            kept = f"the node is up at {status['url']} and keeps trying"
            raise EngineError(status["notes"][-1], fix="elias status; elias model deploy another model", kept=kept)
        waited = time.monotonic() - began
        now = (status and status["change"]) or "starting the node"
        if waited > _SHOW_AFTER_S and now != told:
            told = now
            say(f"{now}…")
        if waited > _PATIENCE_S:
            raise EngineError("no model is in service yet", fix="elias status", kept="the node is up and keeps trying")
        time.sleep(0.1)
    raise _last_error(log, begin)


def _heard(home: Path) -> dict[str, Any] | None:
    """None too for one that broke off: it is on its way up, or busy, and is asked again."""
    try:
        return _running(home)
    except EngineError:
        return None


def _last_error(log: Path, begin: int) -> EliasError:
    """What the node wrote before it ended: with --json an error is one line."""
    from elias import errors

    written = log.read_bytes()[begin:].decode("utf-8", errors="replace").strip()
    try:
        found = jsonlib.loads(written.splitlines()[-1])
        kind = getattr(errors, found["error"])
        error: EliasError = kind(found["what"], fix=found["fix"], kept=found["kept"])
    except (IndexError, ValueError, KeyError, TypeError, AttributeError):
        return EngineError(f"the node ended while it started:\n{written[-1500:]}", fix=f"read {log}")
    return error


def _show(status: dict[str, Any], *, json: bool) -> None:
    if json:
        emit_json(status)
        return
    print("\n".join(status_lines(status)))
    print(f"gateway     {status['url']}/v1 (OpenAI's API; any key, model `elias`)")
    print(f"dashboard   {status['url']}/")
