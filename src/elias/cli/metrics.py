"""`elias metrics`: the losses and speeds of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from elias.cli.output import Json, emit_json, emit_table

app = typer.Typer(add_completion=False)
ROWS = 20
COLUMNS = ("step", "epoch", "loss", "learning_rate", "tokens_per_s", "memory_bytes")


@app.command()
def metrics(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, by the beginning of its id, or `latest`.")
    ] = "latest",
    every: Annotated[int | None, typer.Option(min=1, help="Show each n-th step.  [default: about 20 of them]")] = None,
    json: Json = False,
) -> None:
    """The losses and speeds of a run, step by step, as its trainer reported them."""
    from elias.cli.run import _id, _training

    with _training() as training:
        found = training.stores.runs.get(_id(training, run))
        segments = training.stores.runs.segments(found.id)
        events = [e for s in segments for e in training.stores.runs.events(s.key) if e["kind"] == "step"]
    steps = last_of_each(events)
    if json:
        emit_json({"run": found.id, "state": found.state, "steps": steps})
        return
    stride = every or max(1, len(steps) // ROWS)
    shown = [e for n, e in enumerate(steps) if n % stride == 0 or n == len(steps) - 1]
    rows = [
        (f"{e['step']}/{e['step_total']}", f"{e['epoch']:.2f}", f"{e['loss']:.4f}", f"{e['learning_rate']:.2e}",
         f"{e['tokens_per_s']:,.0f}", f"{e['memory_bytes'] / 2**20:,.0f}")
        for e in shown
    ]  # fmt: skip
    emit_table(["step", "epoch", "loss", "rate", "tok/s", "MiB"], rows, empty="no step yet: elias run watch")


def last_of_each(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """In order; a step that was done again after a crash counts once, as it was done last."""
    kept = {int(event["step"]): event for event in steps}
    return [{name: kept[step].get(name) for name in ("step_total", *COLUMNS)} for step in sorted(kept)]
