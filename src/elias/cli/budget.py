"""`elias budget`: what may be spent, what was, and what the providers' bills say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from elias.config.schema import Config
    from elias.services.books import Line
    from elias.units import Money

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Caps on money, what was spent, and the bills.")
CAPS = ("run", "day", "month", "account")


@app.command()
def show(json: Json = False) -> None:
    """Caps, what is spent and reserved and what is left; by run and by backend."""
    from elias.config import load
    from elias.domain.spend import dollars
    from elias.wiring.spend import caps_of, open_books

    config = load()
    with open_books(config) as books:
        found = books.overview(caps_of(config))
    if json:
        emit_json({"run_cap": config.budget.run, "overview": found})
        return
    limit = config.budget.run
    print(f"a run may spend {dollars(limit) if limit is not None else 'only what its own --budget allows'}")
    _table("cap", found.caps)
    if found.runs:
        print()
        _table("run", found.runs)
        print()
        _table("backend", found.backends)
    for account in found.open:
        say(f"{account.claim.key} holds {dollars(account.reserved)} since {account.first_at:%Y-%m-%d %H:%M} UTC")


@app.command("set")
def set_cap(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="run, day, month, account, or the id of one run.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Such as 5usd; `none` lifts the cap.")],
    json: Json = False,
) -> None:
    """Set a cap, or the budget of one run. Other settings and your comments stay as they are."""
    from elias.config import load
    from elias.units import Money

    config = load()
    money = None if amount.strip().lower() == "none" else Money.parse(amount)
    if what not in CAPS:
        _set_budget_of_run(config, what, money, json=json)
        return
    from elias.config.edit import set_values

    text = "none" if money is None else f"{_plain(money)}usd"
    path = set_values(config.home, "budget", {what: text})
    after = load()
    emit_json({"name": f"budget.{what}", "value": money, "path": path}) if json else print(f"budget.{what} = {text}")
    if getattr(after.budget, what) != money:
        say(f"warning: {after.origins[f'budget.{what}']} says otherwise, and is stronger than {path}")
    say("a run that waits at a cap notices within 15 minutes; a paused one goes on with: elias run resume RUN")


@app.command()
def reconcile(
    days: Annotated[int, typer.Option(min=1, max=365, help="How far back.")] = 30,
    apply: Annotated[bool, typer.Option("--apply", help="Write the differences down.")] = False,
    json: Json = False,
) -> None:
    """Compare the journal with each provider's own bill; --apply writes the differences down."""
    from datetime import timedelta

    from elias.config import load
    from elias.domain.fields import as_json
    from elias.domain.spend import dollars
    from elias.units import FREE
    from elias.wiring.spend import open_books
    from elias.wiring.spend import reconcile as compare_bills

    config = load()
    with open_books(config) as books:
        found, silent = compare_bills(config, books, timedelta(days=days))
        written = [books.adjust(one) if apply else FREE for one in found]
    for name, error in silent.items():
        say(f"{name} could not be asked: {error.what}\n  fix: {error.fix}")
    if json:
        rows = [
            as_json(one) | {"difference": as_json(one.difference), "written": as_json(money)}
            for one, money in zip(found, written, strict=True)
        ]
        emit_json({"compared": rows, "not_asked": {name: error.what for name, error in silent.items()}})
    else:
        table = [
            (
                one.backend,
                one.name,
                "-" if one.billed is None else dollars(one.billed),
                dollars(one.journal),
                one.finding,
            )
            for one in found
        ]
        emit_table(("backend", "name", "billed", "journal", ""), table, empty="no backend has a bill to compare with")
        if apply:
            print(f"written down: {dollars(sum(written, FREE))} in {sum(m != FREE for m in written)} adjustments")
    if silent and not found:
        raise next(iter(silent.values()))


def _set_budget_of_run(config: Config, what: str, budget: Money | None, *, json: bool) -> None:
    from dataclasses import replace

    from elias.domain.spend import dollars
    from elias.errors import Refused
    from elias.wiring.stores import open_stores

    with open_stores(config) as stores:
        run = stores.runs.get(what)
        if run.state.is_final:
            raise Refused(f"{run.id} is {run.state}: it spends nothing more", fix="begin another one: elias train")
        run = stores.runs.update(run.id, bounds=replace(run.bounds, budget=budget))
    emit_json(run) if json else print(f"{run.id}: budget {'none of its own' if budget is None else dollars(budget)}")
    if budget is not None and config.budget.run is not None and config.budget.run < budget:
        allowed, raised = dollars(config.budget.run), f"elias budget set run {_plain(budget)}usd"
        say(f"budget.run allows any run {allowed} only; raise it: {raised}")
    if run.state.is_standing:
        say(f"go on: elias run resume {run.id}")


def _table(what: str, lines: Sequence[Line]) -> None:
    from elias.domain.spend import dollars

    def text(money: Money | None) -> str:
        return "-" if money is None else dollars(money)

    rows = [
        (one.name, text(one.limit), text(one.spent), text(one.reserved), text(one.left), _until(one.until))
        for one in lines
    ]
    emit_table((what, "may", "spent", "reserved", "left", ""), rows, empty="nothing was spent yet")


def _until(moment: datetime | None) -> str:
    return f"until {moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def _plain(money: Money) -> str:
    from elias.domain.spend import dollars

    return dollars(money).removeprefix("$")
