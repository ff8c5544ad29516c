"""`elias run forget` and `elias run prune`: give back the disk that checkpoints of runs take which are over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elias.cli.output import Json, Yes, ask, emit_json, emit_table, say

if TYPE_CHECKING:
    from elias.services.forget import Forgetting, Leftover

OLDER = "30d"


def add_to(app: typer.Typer) -> None:
    app.command("forget")(forget)
    app.command("prune")(prune)


def forget(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, by the beginning of its id.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove one run's checkpoints. A run that was paused or failed cannot be resumed afterwards."""
    with _forgetting() as forgetting:
        found = forgetting.runs.get(run)
        left = forgetting.leftover(found)
        warning = " It could still be resumed; afterwards it cannot." if left.could_resume else ""
        ask(f"Remove {_size(left.bytes)} of checkpoints of {left.run} ({left.state})?{warning}", yes=yes)
        left = forgetting.forget(found.id)
    if json:
        emit_json(left)
        return
    print(f"{left.run}: {_size(left.bytes)} of checkpoints removed")


def prune(
    older: Annotated[str, typer.Option(help="Only runs that ended so long ago, such as 30d or 12h.")] = OLDER,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove them; without it they are only listed.")] = False,
    json: Json = False,
) -> None:
    """List the checkpoints of runs that are over, and with --yes remove those of runs that cannot go on anyway."""
    from elias.units import parse_span

    with _forgetting() as forgetting:
        found = forgetting.leftovers(parse_span(older, default_unit="d"))
        over = [left for left in found if not left.could_resume]
        if yes:
            for left in over:
                forgetting.forget(left.run)
    total = sum(left.bytes for left in over)
    if json:
        emit_json({"removed": yes, "bytes": total, "runs": over, "could_resume": _others(found)})
        return
    rows = [(left.run, left.state, f"{left.ended_at:%Y-%m-%d}", _size(left.bytes), _fate(left, yes)) for left in found]
    emit_table(["run", "state", "ended", "checkpoints", ""], rows, empty=f"no run older than {older} holds checkpoints")
    if over:
        say(f"{_size(total)} {'were removed' if yes else 'would be removed; to do it: elias run prune --yes'}")


@contextmanager
def _forgetting() -> Iterator[Forgetting]:
    from elias.config import load
    from elias.services.forget import Forgetting
    from elias.wiring.train import open_training

    with open_training(load()) as training:
        means = training.coordinator.means
        yield Forgetting(
            runs=means.runs, backends=means.backends, folders=means.folders, share=means.share, clock=means.clock
        )


def _others(found: Sequence[Leftover]) -> list[Any]:
    return [left for left in found if left.could_resume]


def _fate(left: Leftover, is_done: bool) -> str:
    if left.could_resume:
        return f"stays: it could be resumed (elias run forget {left.run})"
    return "removed" if is_done else "would be removed"


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
