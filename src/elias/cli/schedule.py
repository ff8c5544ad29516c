"""`elias schedule`: standing orders to train, carried out by the node."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elias.cli.output import Json, emit_json, emit_table, say
from elias.errors import InputError

if TYPE_CHECKING:
    from elias.domain.schedule import Firing, Schedule

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Train by evidence, day or week; the node does it.")


@app.command()
def add(
    name: Annotated[str | None, typer.Argument(help="Of the schedule; not with --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A TOML file with a table [schedule.NAME] for each.")] = None,
    at: Annotated[str | None, typer.Option(help="Time of the day, UTC, such as 02:00.")] = None,
    day: Annotated[list[str] | None, typer.Option(help="mon to sun, several times.  [default: every day]")] = None,
    new_sessions: Annotated[int | None, typer.Option(min=0, help="That it takes since the last time.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Where it may be trained.")] = None,
    base: Annotated[str | None, typer.Option(help="The base model.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only sessions of it, several times.")] = None,
    stage: Annotated[list[int] | None, typer.Option(help="Only sessions of it, several times.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps each time.")] = None,
    hours: Annotated[str | None, typer.Option(help="Of training each time, such as 6h.")] = None,
    budget: Annotated[str | None, typer.Option(help="Each time, such as 5usd.")] = None,
    deploy: Annotated[bool, typer.Option(help="Put what the gate accepts into service.")] = True,
    json: Json = False,
) -> None:
    """Add a schedule, or all of a file; the node carries it out.

    Refused is what cannot be, and then nothing is added. A place that is not ready yet, or a cap below the budget, is a
    warning.
    """
    from elias.adapters.clock import SystemClock
    from elias.config import load
    from elias.wiring.schedule import add_schedules

    given = {
        "at": at, "days": day, "new_sessions": new_sessions, "strategy": strategy, "base": base, "sources": source,
        "stages": stage, "steps": steps, "hours": hours, "budget": budget, "deploy": None if deploy else False,
    }  # fmt: skip
    own = {key: value for key, value in given.items() if value is not None and value != []}
    if (name is None) == (file is None) or (file is not None and own):
        raise InputError("give a name and what it is to do, or a file", fix="elias schedule add nightly --at 02:00")
    tables = {name: own} if name is not None else _tables(file or Path())
    config, now = load(), SystemClock().now()
    tables = {each: table | _whole_path(table) for each, table in tables.items()}
    made, doubts = add_schedules(config, tables, now)
    for doubt in doubts:
        say(f"warning: {doubt.what}\n  fix: {doubt.fix}")
    if json:
        emit_json([_fields(schedule, ()) for schedule in made])
        return
    for schedule in made:
        print(f"added {schedule.name}: {_when(schedule)}")
    say("The node carries it out: elias up")


@app.command("list")
def list_all(json: Json = False) -> None:
    """Each schedule: when, where, what it may cost, when next, and how the last one went."""
    from elias.config import load
    from elias.wiring.schedule import schedule_book

    book = schedule_book(load())
    found = [(schedule, book.firings(schedule.name)) for schedule in book.list()]
    if json:
        emit_json([_fields(schedule, firings[-1:]) for schedule, firings in found])
        return
    columns = ("schedule", "when", "where", "hours", "budget", "next", "last")
    emit_table(columns, [_row(schedule, firings) for schedule, firings in found], empty="no schedules")


@app.command()
def show(name: str, json: Json = False) -> None:
    """One schedule with every time that it was due, the newest first."""
    from elias.config import load
    from elias.wiring.schedule import schedule_book

    book = schedule_book(load())
    schedule, firings = book.get(name), list(reversed(book.firings(name)))
    if json:
        emit_json(_fields(schedule, firings))
        return
    print(f"{schedule.name}: {_when(schedule)}")
    rows = [(f"{f.slot:%a %Y-%m-%d %H:%M}", len(f.sessions), f.run or "-", f.outcome or "under way") for f in firings]
    emit_table(("due, UTC", "sessions", "run", "outcome"), rows, empty="it was not due yet")


@app.command()
def remove(name: str, json: Json = False) -> None:
    """Remove a schedule and its history. A run that it has begun goes on, and its models stay."""
    from elias.config import load
    from elias.wiring.schedule import schedule_book

    schedule_book(load()).remove(name)
    emit_json({"removed": name}) if json else print(f"removed {name}")


@app.command("run-now")
def run_now(name: str, json: Json = False) -> None:
    """Have the node carry it out now, however little is new; once, after what is under way of it."""
    from elias.config import load
    from elias.wiring.schedule import schedule_book

    schedule_book(load()).ask(name)
    emit_json({"asked": name}) if json else print(f"{name} is carried out within seconds of the node being up")


def _tables(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}", fix="see examples/weekly.toml") from error
    tables = found.get("schedule")
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InputError(f"{file} has no table [schedule.NAME]", fix="see examples/weekly.toml")
    return tables


def _whole_path(table: dict[str, Any]) -> dict[str, Any]:
    """The node works in another folder than the one where this was typed."""
    from elias.cli.asking import existing

    base = table.get("base")
    return {"base": existing(base)} if isinstance(base, str) and base else {}


def _fields(schedule: Schedule, firings: Any) -> dict[str, Any]:
    from elias.adapters.clock import SystemClock
    from elias.domain.fields import as_json
    from elias.domain.schedule import next_slot

    plain = {name: value for name, value in as_json(schedule).items() if name != "at"}
    at = f"{schedule.at:%H:%M}" if schedule.at else None
    upcoming = next_slot(schedule, SystemClock().now())
    return {**plain, "at": at, "next": as_json(upcoming), "firings": [as_json(firing) for firing in firings]}


def _when(schedule: Schedule) -> str:
    enough = f"{schedule.new_sessions} new sessions"
    if schedule.at is None:
        return f"with {enough}"
    days = "every day" if len(set(schedule.days)) == 7 else ", ".join(schedule.days)
    return f"{days} at {schedule.at:%H:%M} UTC" + (f", with {enough}" if schedule.new_sessions else "")


def _row(schedule: Schedule, firings: Any) -> tuple[object, ...]:
    from elias.adapters.clock import SystemClock
    from elias.domain.schedule import next_slot

    upcoming = next_slot(schedule, SystemClock().now())
    last: Firing | None = firings[-1] if firings else None
    hours = f"{schedule.hours.total_seconds() / 3600:g}" if schedule.hours else "-"
    return (
        schedule.name,
        _when(schedule),
        schedule.strategy or "as configured",
        hours,
        schedule.budget if schedule.budget is not None else "-",
        f"{upcoming:%a %H:%M}" if upcoming else "-",
        f"{last.slot:%a %H:%M} {last.outcome or 'under way'}" if last else "-",
    )
