"""From a begun run to its end on the command line: carry, watch, be interrupted, answer."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from elias.cli.output import emit_json, say
from elias.cli.progress import Watch
from elias.domain.fields import as_json
from elias.domain.run import Run, RunState
from elias.services.eta import eta_of
from elias.services.runs import error_of

if TYPE_CHECKING:
    from elias.wiring.train import Training

DETACHED, PAUSED, CANCELLED = "detach", "pause", "cancel"


def carry_and_answer(training: Training, run: Run, *, json: bool) -> None:
    """Until the run stands; then its outcome on stdout. Raises the error of a run that failed."""
    with Watch(training, run.id) as watch:
        while True:
            try:
                run = watch.until_it_stands()
                break
            except KeyboardInterrupt:
                watch.open.close()
                wish = _ask_what_to_do()
            if wish == DETACHED:
                detach(training, run, json=json)
                return
            (training.runs.pause if wish == PAUSED else training.runs.cancel)(run.id)
            say(f"{wish}: waiting for the trainer to write its checkpoint")
            watch.show()
    answer(training, run, json=json)


def answer(training: Training, run: Run, *, json: bool) -> None:
    segments = training.stores.runs.segments(run.id)
    if run.state is RunState.FAILED:
        raise error_of(run, segments)
    if json:
        emit_json(describe(training, run))
        return
    print(f"{run.id}  {run.state}" + (f"  model {run.artifact.short}" if run.artifact else ""))
    if run.reason:
        print(f"  {run.reason}")
    steps = [e for s in segments for e in training.stores.runs.events(s.key) if e["kind"] == "step"]
    if steps:
        print(f"  loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f} in {steps[-1]['step']} steps")
    if run.state is RunState.DONE:
        print("  next: elias model judge, then elias model deploy")
    elif run.state is RunState.PAUSED:
        print(f"  go on: elias run resume {run.id}")


def describe(training: Training, run: Run) -> dict[str, Any]:
    runs = training.stores.runs
    eta = eta_of(run, runs, training.coordinator.means.clock.now())
    segments = [as_json(s) | {"key": s.key} for s in runs.segments(run.id)]
    return {**as_json(run), "eta": as_json(eta), "segments": segments}


def detach(training: Training, run: Run, *, json: bool) -> None:
    """A process of its own carries the run on; when a node runs, that does, and it only looks on."""
    logs = training.coordinator.means.folders.parent / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    training.stop()
    log = logs / f"{run.id}.log"
    command = [sys.executable, "-c", "from elias.cli import main; main()", "run", "carry", run.id]
    with log.open("ab") as stream:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    child.returncode = 0  # it is meant to outlive this process: nobody here will wait for it
    say(f"{run.id} goes on in the background; its output: {log}")
    say(f"  watch it: elias run watch {run.id}")
    emit_json({"id": run.id, "state": run.state, "log": log}) if json else print(run.id)


def _ask_what_to_do() -> str:
    """On a terminal the person chooses; elsewhere nobody is there, and pausing loses nothing."""
    if not sys.stdin.isatty():
        return PAUSED
    import typer

    question = "detach (it goes on in the background), pause (resume later) or cancel?"
    while True:
        wish = str(typer.prompt(question, default=DETACHED, err=True)).strip().lower()
        if wish in (DETACHED, PAUSED, CANCELLED):
            return wish
