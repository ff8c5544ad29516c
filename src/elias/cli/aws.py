"""`elias aws`: what training on SageMaker needs in an account; made, looked at, taken away, and watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, Yes, ask, emit_json, emit_table, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elias.adapters.backends.sagemaker.setup import Finding
    from elias.services.orphans import Look
    from elias.wiring.aws import Account, Checked

app = typer.Typer(no_args_is_help=True, add_completion=False, help="The account that SageMaker trains in.")

Apply = Annotated[bool, typer.Option("--apply", help="Do it; without, it is only shown.")]


@app.command()
def setup(
    apply: Apply = False,
    documents: Annotated[bool, typer.Option("--documents", help="Show the policies in full.")] = False,
    json: Json = False,
) -> None:
    """Make key, bucket, role and policies, once. Safe to repeat; without --apply nothing is made."""
    from elias.config import load
    from elias.wiring import aws

    config = load()
    account, findings, texts = aws.look(config)
    if apply:
        made = list(_told(aws.apply(config), json=json))
        account, findings, texts = aws.look(config)
        if json:
            emit_json({"account": account, "made": [f for f in made if f.state != "there"], "parts": findings})
            return
        print(f"all there; written to config.toml below [{aws.TABLE}]: region, bucket, role, kms_key")
        print(f"give your daily credentials the policy {findings[-1].detail}, and no more: docs/sagemaker.md")
        return
    if json:
        emit_json({"account": account, "parts": findings, "documents": texts})
        return
    _print_parts(account, findings)
    if documents:
        for name, text in texts.items():
            print(f"\n{name}:")
            emit_json(text)
    if any(finding.state != "there" for finding in findings):
        say("nothing was made; elias aws setup --apply makes it (the key costs $1 a month, all else by its use)")


@app.command()
def check(json: Json = False) -> None:
    """What is missing, each with its fix, and how many instances of each type the account may have. Exits 2 then."""
    from elias.config import load
    from elias.wiring import aws

    found = aws.check(load())
    if json:
        emit_json(found)
    else:
        _print_check(found)
    if not found.is_ready:
        raise typer.Exit(2)


@app.command()
def teardown(
    apply: Apply = False,
    force: Annotated[bool, typer.Option("--force", help="Also runs that are in S3 alone.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take away what set-up made. Without --apply nothing is; never while a job runs. The key waits 30 days."""
    from elias.config import load
    from elias.wiring import aws

    config = load()
    things, obstacles = aws.removals(config)
    if not apply:
        if json:
            emit_json({"removals": things, "obstacles": obstacles})
            return
        emit_table(("would go", "with it"), [(t.what, t.detail) for t in things], empty="nothing is there")
        for why in obstacles:
            print(f"in the way: {why}")
        return
    ask(f"This removes {', '.join(thing.what for thing in things) or 'nothing'}. Go on?", yes=yes)
    gone = []
    for thing in aws.tear_down(config, force=force):
        gone.append(thing)
        say(f"removed {thing.what}")
    if json:
        emit_json({"removed": gone})
    else:
        print(f"{len(gone)} things removed; bucket, role and kms_key still stand in config.toml")


@app.command()
def sweep(
    stop: Annotated[list[str] | None, typer.Option(help="End this job, or `all` that no run owns.")] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """What runs and lies in the account in this node's name, what it costs, and what of it no run owns."""
    from elias.config import load
    from elias.errors import BackendError
    from elias.wiring import aws

    config = load()
    if stop:
        ask(f"This ends {', '.join(stop)}; what was saved stays. Go on?", yes=yes)
        stopped = aws.stop(config, stop)
        if json:
            emit_json({"stopped": stopped})
        else:
            print(f"told to end: {', '.join(stopped) or 'nothing, for no job is without a run'}")
        return
    found = aws.sweep(config)
    if json:
        emit_json(found)
    elif found.trouble:
        raise BackendError(found.trouble.partition(" (fix: ")[0], fix="elias aws check")
    else:
        _print_sweep(found)


def _told(findings: Iterable[Finding], *, json: bool) -> Iterable[Finding]:
    for finding in findings:
        if not json:
            was = {"there": "was there", "missing": "made", "differs": "put right"}.get(finding.state, "made anew")
            say(f"{finding.part}: {was} ({finding.detail})")
        yield finding


def _print_parts(account: Account, findings: Iterable[Finding]) -> None:
    print(f"account {account.account}, region {account.region}\n")
    rows = [(f.part, f.state, f.detail, f.fix or "") for f in findings]
    emit_table(("part", "is", "what", "fix"), rows, empty="nothing is needed")


def _print_check(found: Checked) -> None:
    _print_parts(found.account, found.parts)
    print()
    rows = [
        (
            row.type,
            _quota(row.on_demand, row.on_demand_code),
            _quota(row.spot, row.spot_code),
            row.hourly,
        )
        for row in found.quotas
    ]
    emit_table(("type", "on demand", "spot", "$/h"), rows, empty="no type is known")
    short = [row for row in found.quotas if row.fix]
    if short:
        print(f"\na quota of 0 is raised on request, such as:\n  {short[0].fix}")
    for note in found.notes:
        say(note)


def _quota(value: int | None, code: str | None) -> str:
    return "unknown" if value is None else f"{value} ({code})"


def _print_sweep(found: Look) -> None:
    rows = [
        (
            holding.kind,
            holding.name,
            holding.run or "-",
            f"{holding.hourly}" if holding.kind == "job" and holding.hourly else "",
            holding.detail,
        )
        for holding in found.holdings
    ]
    emit_table(("kind", "name", "run", "$/h", "what"), rows, empty="nothing runs or lies there in this node's name")
    for orphan in found.orphans:
        job = orphan.holding.kind == "job"
        fix = f" (end it: elias aws sweep --stop {orphan.holding.name})" if job else ""
        print(f"no run owns {orphan.holding.name}: {orphan.why}{fix}")
