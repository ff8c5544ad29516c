"""`elias session list|show|label`: what was captured, and how far it may travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table
from elias.domain.fields import as_json
from elias.domain.label import Label
from elias.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elias.domain.session import Session

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, show and label sessions.")

SourceOption = Annotated[str | None, typer.Option("--source", help="Only of this source: code, git, chat, …")]
NONE_YET = "no such sessions; capture some: elias capture --help"
SHOWN = 50


@app.command("list")
def list_sessions(
    source: SourceOption = None,
    label: Annotated[Label | None, typer.Option("--label", help="Only with this label.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="The most; without, 50 in a table and all in JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Sessions in order of id."""
    from itertools import islice

    from elias.config import load
    from elias.wiring.stores import open_stores

    with open_stores(load()) as stores:
        found = stores.sessions.select(source=source, label=label)
        first = list(islice(found, limit or (None if json else SHOWN)))
        more = sum(1 for _ in found)
    if json:
        emit_json([_summary(session) for session in first])
        return
    rows = [(s.id[:12], s.source, s.label, s.stage or "", _reward(s), s.title) for s in first]
    emit_table(("session", "source", "label", "stage", "reward", "title"), rows, empty=NONE_YET)
    if more:
        print(f"and {more:,} more; --limit shows them")


@app.command("show")
def show_session(session: str, json: Json = False) -> None:
    """All of one session, by its id or the beginning of it."""
    from elias.config import load
    from elias.wiring.stores import open_stores

    with open_stores(load()) as stores:
        found = stores.sessions.get(session)
    if json:
        emit_json({**as_json(found), "reward_ppm": found.reward_ppm})
        return
    for name, value in _facts(found):
        print(f"{name:<9} {value}")
    for event in found.events:
        heading = " ".join(word for word in (event.kind, event.role, event.name) if word)
        print(f"\n--- {heading}\n{event.text.rstrip()}")


@app.command("label")
def label_session(
    sessions: Annotated[list[str] | None, typer.Argument(metavar="[SESSION]...", help="Ids, or beginnings.")] = None,
    label: Annotated[Label, typer.Argument(help="The label they get.")] = ...,  # type: ignore[assignment]
    source: SourceOption = None,
    every: Annotated[bool, typer.Option("--all", help="All sessions.")] = False,
    json: Json = False,
) -> None:
    """Say how far sessions may travel: public, shared, private or secret. A corpus has its strictest session's."""
    from elias.config import load
    from elias.wiring.stores import open_stores

    if bool(sessions) + bool(source or every) != 1:
        raise InputError("name the sessions, or choose by --source or --all", fix="elias session label ID private")
    with open_stores(load()) as stores:
        if sessions:
            ids = [stores.sessions.get(session).id for session in sessions]
        else:
            ids = [session.id for session in stores.sessions.select(source=source) if session.label is not label]
        for session in ids:
            stores.sessions.set_label(session, label)
    if json:
        emit_json({"label": label, "sessions": ids})
    else:
        print(f"{len(ids):,} {'session is' if len(ids) == 1 else 'sessions are'} {label} now")


def _summary(session: Session) -> dict[str, object]:
    fields = ("id", "source", "title", "taken_at", "label", "stage", "reward_ppm", "origin")
    return {name: getattr(session, name) for name in fields}


def _facts(session: Session) -> Iterable[tuple[str, object]]:
    from elias.units import rfc3339

    yield "session", session.id
    yield "source", session.source
    yield "title", session.title
    yield "taken at", rfc3339(session.taken_at)
    yield "label", session.label
    if session.stage:
        yield "stage", session.stage
    for evidence in session.evidence:
        yield "evidence", f"{evidence.kind}: {evidence.passed:,} of {evidence.total:,}"
    yield "reward", _reward(session) or "nothing observed"
    yield from session.origin.items()


def _reward(session: Session) -> str:
    return "" if session.reward_ppm is None else f"{session.reward_ppm / 1e6:.2f}"
