"""`elias model deploy` and `elias model rollback`: done by the running node, which keeps serving meanwhile."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from elias.cli.node_client import NodeClient, find_node
from elias.cli.output import Json, Yes, ask, emit_json, say

BASE_WORD = "base"
"""Where a model's name is asked for, this is the bare base."""

Model = Annotated[str, typer.Argument(help="`latest`, a digest or its beginning, or `base` for the bare base model.")]
Engine = Annotated[str | None, typer.Option(help="An inference engine; default the first that can serve it.")]
Base = Annotated[str | None, typer.Option(help="Which base model, with `base`.")]
Force = Annotated[bool, typer.Option("--force", help="Even without an accepting verdict.")]


def add_to(app: typer.Typer) -> None:
    """The two commands, for `elias model`."""
    app.command("deploy", help="Put a model in service, beside the one that serves; then move over.")(deploy)
    app.command("rollback", help="Back to the model that was in service before.")(rollback)


def deploy(
    model: Model = "latest",
    engine: Engine = None,
    base: Base = None,
    force: Force = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    node = find_node()
    now = _in_service(node)
    say(f"in service: {now}; to be replaced by: {model}{' --force: without a verdict' if force else ''}")
    ask("Put it in service?", yes=yes)
    artifact = None if model == BASE_WORD else model
    body = {"artifact": artifact, "base": base, "engine": engine, "force": force}
    _show(node, node.post("/api/deploy", body), json=json)


def rollback(yes: Yes = False, json: Json = False) -> None:
    node = find_node()
    say(f"in service: {_in_service(node)}; to be replaced by the model before it")
    ask("Roll back?", yes=yes)
    _show(node, node.post("/api/rollback", {}), json=json)


def _in_service(node: NodeClient) -> str:
    found = node.get("/api/status")["in_service"]
    return str(found["model"]) if found else "nothing yet"


def _show(node: NodeClient, deployment: dict[str, Any], *, json: bool) -> None:
    if json:
        emit_json(deployment)
        return
    print(f"in service: {_in_service(node)} ({deployment['engine']}, deployment {deployment['id']})")
