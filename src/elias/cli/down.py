"""`elias down`: the node ends, with everything it started."""

from __future__ import annotations

import os
import time

import typer

from elias.cli.node_client import NoNode, find_node
from elias.cli.output import Json, emit_json, say
from elias.cli.status import elsewhere_lines
from elias.errors import EngineError

app = typer.Typer(add_completion=False)

_WITHIN_S = 60.0


@app.command(help="Stop the node.")
def down(json: Json = False) -> None:
    try:
        node = find_node()
        goes_on = elsewhere_lines(found := node.get("/api/status"))
        node.post("/api/down", {})
    except NoNode:
        _answer("no node is up", was_up=False, json=json)
        return
    if not json:
        say("letting requests finish…")
    deadline = time.monotonic() + _WITHIN_S
    while _is_running(node.process):
        if time.monotonic() > deadline:
            what = f"the node (process {node.process}) has not ended within {_WITHIN_S:.0f} s"
            raise EngineError(what, fix=f"kill -9 {node.process}; nothing that was finished is lost")
        time.sleep(0.05)
    if json:
        emit_json({"was_up": True, "elsewhere": found.get("elsewhere", [])})
        return
    print("the node is down")
    for line in goes_on:
        print(f"goes on     {line.removeprefix('elsewhere').strip()}")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _answer(line: str, *, was_up: bool, json: bool) -> None:
    if json:
        emit_json({"was_up": was_up})
    else:
        print(line)
