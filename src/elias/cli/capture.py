"""`elias capture code|git|chat`: takes sessions in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elias.cli.output import Json, emit_json, say
from elias.domain.label import Label

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Take in sessions. The same again adds nothing; nothing captured is run.",
)

LabelOption = Annotated[
    Label | None, typer.Option("--label", help="How far they may travel; the default is `capture.label`, private.")
]
StageOption = Annotated[int | None, typer.Option("--stage", min=1, max=4, help="Tank Building stage, 1 to 4.")]
TOLD = 10


@app.command("code")
def capture_code(
    path: Annotated[Path, typer.Argument(help="A Python file, or a folder with some.")],
    label: LabelOption = None,
    stage: StageOption = None,
    json: Json = False,
) -> None:
    """Each documented function: its signature and docstring are the task, its body the solution."""
    _capture("code", path, label, stage, json)


@app.command("git")
def capture_git(
    repo: Annotated[Path, typer.Argument(help="A git repository.")],
    label: LabelOption = None,
    stage: StageOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The most commits, newest first.")] = 2000,
    since: Annotated[str | None, typer.Option(help="No older ones, as `git log --since` takes it.")] = None,
    json: Json = False,
) -> None:
    """Each commit: its message is the task, its change the solution, what is left of it in HEAD the evidence."""
    _capture("git", repo, label, stage, json, limit=limit, since=since)


@app.command("chat")
def capture_chat(
    file: Annotated[Path, typer.Argument(help="One conversation a line, in OpenAI's messages.")],
    label: LabelOption = None,
    stage: StageOption = None,
    json: Json = False,
) -> None:
    """Each line's conversation; with `chosen` and `rejected`, a preference pair."""
    _capture("chat", file, label, stage, json)


def _capture(source: str, location: Path, label: Label | None, stage: int | None, json: bool, **options: Any) -> None:
    from elias.config import load
    from elias.wiring.capture import make_capture
    from elias.wiring.stores import open_stores

    config = load()
    with open_stores(config) as stores:
        captured = make_capture(config, stores, source, label=label, stage=stage, **options).take(location)
    for skipped in captured.skipped[:TOLD]:
        say(
            f"skipped {skipped.where}: {skipped.why}"
            + ("" if skipped.fix == "nothing to do" else f"\n  fix: {skipped.fix}")
        )
    if len(captured.skipped) > TOLD:
        say(f"skipped {len(captured.skipped) - TOLD:,} more; --json names each")
    if json:
        emit_json(captured)
    captured.require_some(location)
    if not json:
        known = captured.seen - captured.new
        print(
            f"{captured.new:,} new {source} {'session' if captured.new == 1 else 'sessions'} from {location}"
            f" ({known:,} known already, {len(captured.skipped):,} skipped)"
        )
        say("next: elias corpus build")
