"""`elias worker`: machines that can only reach out, as training places."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table, say

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Machines that reach this node, and train for it.")

Place = Annotated[str, typer.Option(help="The table of the configuration, where there are several of the kind.")]
Url = Annotated[
    str | None, typer.Option(help="How the other machine reaches the door, https://…  [default: as configured]")
]


@app.command()
def token(
    url: Url = None,
    valid: Annotated[
        str | None, typer.Option(help="How long it may be used, such as 2h.  [default: token_valid]")
    ] = None,
    place: Place = "worker",
    json: Json = False,
) -> None:
    """A token that lets one machine in, once."""
    from elias.config import load
    from elias.units import parse_span, rfc3339
    from elias.wiring.worker import invite

    found = invite(load(), place, url, parse_span(valid) if valid else None)
    if json:
        emit_json(found)
        return
    say(f"On the other machine, once, until {rfc3339(found.until)}:")
    print(f"elias worker join {found.url} {found.token}")
    say("or, without ELIAS there:")
    print(f"curl -fsSLO {found.url}/worker.pyz && python3 -I worker.pyz join {found.url} {found.token}")
    if not found.is_reachable:
        say(
            "Only this machine reaches that address: put a tunnel before it and say its address with --url, or set url."
        )
    say("The door is open while the node is up (elias up); elias worker list shows who came.")


@app.command("list")
def list_(place: Place = "worker", json: Json = False) -> None:
    """Who joined, when it called last, and what it trains."""
    from elias.config import load
    from elias.units import rfc3339
    from elias.wiring.worker import workers

    rows = workers(load(), place)
    if json:
        emit_json(rows)
        return
    body = [
        (
            row.worker,
            row.machine,
            f"{row.accelerator_count} x {row.accelerator}",
            row.python,
            "is to go" if row.is_dismissed else "here" if row.is_here else f"last seen {rfc3339(row.seen_at)}",
            row.segment or "-",
            ", ".join(row.lacks) or "-",
        )
        for row in rows
    ]
    columns = ["worker", "machine", "accelerator", "python", "state", "segment", "lacks"]
    emit_table(columns, body, empty="no worker has joined; let one in: elias worker token")


@app.command()
def forget(
    worker: Annotated[str, typer.Argument(metavar="WORKER")], place: Place = "worker", json: Json = False
) -> None:
    """Let a worker go: it brings home what it has, and is not let in again."""
    from elias.config import load
    from elias.wiring.worker import forget as let_go

    is_gone = let_go(load(), place, worker)
    if json:
        emit_json({"worker": worker, "gone": is_gone})
        return
    print(f"{worker} is forgotten" if is_gone else f"{worker} hears it with its next call, after what it has is home")


@app.command()
def join(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the node's door, https://…")],
    token: Annotated[str | None, typer.Argument(metavar="[TOKEN]", help="Not needed where it joined before.")] = None,
    folder: Annotated[Path, typer.Option(help="Where segments lie while they are trained.")] = Path("~/elias-worker"),
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow http:// to another machine.")] = False,
    json: Json = False,
) -> None:
    """Make this machine a worker of somebody's node, until Ctrl-C."""
    words = [sys.executable, "-m", "elias_trainer", "join", url, *([token] if token else []), "--folder", str(folder)]
    words += ["--insecure"] * insecure + ["--json"] * json
    sys.stdout.flush()
    os.execv(sys.executable, words)  # the trainer's own program: Ctrl-C and SIGTERM reach it as they are


@app.command()
def notebook(
    url: Url = None,
    out: Annotated[Path | None, typer.Option(help="Write it here instead of to stdout.")] = None,
    place: Place = "worker",
    json: Json = False,
) -> None:
    """A notebook of one cell that makes its machine a worker: for Colab, or any Jupyter. Holds a new token."""
    import json as jsonlib

    from elias.config import load
    from elias.wiring.worker import invite, notebook_for

    config = load()
    invitation = invite(config, place, url, None)
    text = jsonlib.dumps(notebook_for(config, place, invitation), indent=1) + "\n"
    if out is not None:
        out.write_text(text, encoding="utf-8")
        out.chmod(0o600)
    if not invitation.is_reachable:
        say(
            "Only this machine reaches that address: put a tunnel before it and say its address with --url, or set url."
        )
    if json:
        emit_json({"path": out, "url": invitation.url, "until": invitation.until, "text": None if out else text})
    elif out is None:
        print(text, end="")
