"""`elias run`: runs, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from elias.cli.output import Json, emit_json, emit_table, say
from elias.cli.run_adopt import add_to as add_adopt
from elias.cli.run_forget import add_to as add_forget

if TYPE_CHECKING:
    from elias.wiring.train import Training

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, watch, log, pause, cancel, resume, forget.")
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run, by the beginning of its id, or `latest`.")]


@app.command("list")
def list_runs(json: Json = False) -> None:
    """All runs, newest first."""
    from elias.domain.fields import as_json
    from elias.services.eta import eta_of

    with _training() as training:
        store, now = training.stores.runs, training.coordinator.means.clock.now()
        runs = store.list()
        if json:
            emit_json([as_json(run) | {"eta": as_json(eta_of(run, store, now))} for run in runs])
            return
    rows = [(r.id, r.state, r.strategy, r.base.reference, r.corpus.short, r.reason or "") for r in runs]
    emit_table(["run", "state", "strategy", "base", "corpus", ""], rows, empty="no runs yet: elias train begins one")


@app.command()
def show(run: RunId = "latest", json: Json = False) -> None:
    """One run, with its segments."""
    from elias.cli.carry import describe
    from elias.cli.progress import clock_of, stands_at
    from elias.domain.spend import dollars
    from elias.services.eta import eta_of
    from elias.services.forget import left_at

    with _training() as training:
        found = training.stores.runs.get(_id(training, run))
        segments = training.stores.runs.segments(found.id)
        eta = eta_of(found, training.stores.runs, training.coordinator.means.clock.now())
        if json:
            emit_json(describe(training, found))
            return
        under_way = {s.key: stands_at(training.stores.runs.events(s.key)) for s in segments if not s.state.is_final}
        left = left_at(found, segments, training.runs.backends)
    print(f"{found.id}  {found.state}" + (f": {found.reason}" if found.reason else ""))
    print(f"  base {found.base.reference}, corpus {found.corpus.short} ({found.label}), strategy {found.strategy}")
    if found.artifact:
        print(f"  model {found.artifact}")
    if eta:
        low, high = clock_of(eta.seconds.low), clock_of(eta.seconds.high)
        print(
            f"  {eta.steps} steps left: {clock_of(eta.seconds.likely)} ({low} to {high}), {eta.ends_at:%d %b %H:%M} UTC"
        )
    rows = [
        (
            s.number,
            f"{s.backend} {s.offer or ''}".rstrip(),
            s.state,
            s.end.step if s.end else "",
            dollars(s.cost),
            s.failure.message if s.failure else under_way.get(s.key, ""),
        )
        for s in segments
    ]
    emit_table(["segment", "backend", "state", "checkpoint", "cost", ""], rows, empty="  no segment yet")
    if left:
        print(f"what it left on {' and '.join(left)} is kept to go on from; to remove it: elias run forget {found.id}")


@app.command()
def watch(run: RunId = "latest", json: Json = False) -> None:
    """Follow a run to its end; where nobody carries it, carry it from here."""
    from elias.cli.carry import carry_and_answer

    with _training() as training:
        carry_and_answer(training, training.stores.runs.get(_id(training, run)), json=json)


@app.command(hidden=True)
def carry(run: RunId) -> None:
    """What `train --detach` leaves behind: carries the run and writes lines."""
    from elias.cli.progress import Watch

    with _training() as training, Watch(training, _id(training, run)) as watch:
        watch.until_it_stands()


@app.command()
def logs(run: RunId = "latest", json: Json = False) -> None:
    """What the trainer said: its events, and whatever else it printed."""
    from elias.cli.progress import line_of
    from elias.ports.backend import HasLog

    with _training() as training:
        found = training.stores.runs.get(_id(training, run))
        segments = training.stores.runs.segments(found.id)
        if json:
            emit_json({s.key: training.stores.runs.events(s.key) for s in segments})
            return
        for segment in segments:
            print(f"segment {segment.number} on {segment.backend}: {segment.state}")
            for event in training.stores.runs.events(segment.key):
                if line := line_of(event):
                    print(f"  {event['at']}  {line}")
            backend = training.runs.backends(found.strategy)[segment.backend]
            if segment.handle and isinstance(backend, HasLog):
                for line in backend.log(segment.handle):
                    print(f"  | {line}")


@app.command()
def pause(run: RunId = "latest", json: Json = False) -> None:
    """End its step, write a checkpoint, wait for `resume`."""
    from elias.cli.carry import carry_and_answer

    with _training() as training:
        carry_and_answer(training, training.runs.pause(_id(training, run)), json=json)


@app.command()
def cancel(run: RunId, json: Json = False) -> None:
    """End it within seconds; its newest checkpoint stays."""
    from elias.cli.carry import carry_and_answer

    with _training() as training:
        carry_and_answer(training, training.runs.cancel(_id(training, run)), json=json)


@app.command()
def resume(
    run: RunId = "latest",
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Here, where another node of the store began it and is dead for good.")
    ] = False,
    json: Json = False,
) -> None:
    """Go on from the newest checkpoint: a run that was paused, that failed, or whose node died."""
    from elias.cli.carry import carry_and_answer
    from elias.cli.carry import detach as go_on_in_background

    with _training() as training:
        runs, run_id = training.runs, _id(training, run)
        found = runs.take_over(run_id) if take_over else runs.resume(run_id)
        say(f"{found.id} goes on" + (f": {runs.elsewhere(found)}" if runs.elsewhere(found) else ""))
        if detach:
            go_on_in_background(training, found, json=json)
        else:
            carry_and_answer(training, found, json=json)


add_adopt(app)
add_forget(app)


@contextmanager
def _training() -> Iterator[Training]:
    from elias.config import load
    from elias.wiring.train import open_training

    with open_training(load()) as training:
        yield training


def _id(training: Training, run: str) -> str:
    """The whole id. Raises NotFound."""
    from elias.errors import NotFound

    if run != "latest":
        return training.stores.runs.get(run).id
    newest = next(iter(training.stores.runs.list()), None)
    if newest is None:
        raise NotFound("there is no run yet", fix="begin one: elias train")
    return newest.id
