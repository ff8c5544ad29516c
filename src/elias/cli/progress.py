"""A run as it happens: a bar on a terminal, a line now and then elsewhere; all of it on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from elias.cli.output import say
from elias.domain.run import Run, RunState, Segment

if TYPE_CHECKING:
    from rich.progress import Progress

    from elias.wiring.train import Training

LOOK_EVERY_S = 0.3
TAKE_OVER_EVERY_S = 3.0


class View(Protocol):
    def event(self, segment: Segment, event: Mapping[str, Any]) -> None: ...

    def state(self, run: Run) -> None: ...


class Lines:
    """A line for each segment, checkpoint and warning: what a log wants."""

    def __init__(self) -> None:
        self.said = ""

    def event(self, segment: Segment, event: Mapping[str, Any]) -> None:
        if line := line_of(event):
            say(f"segment {segment.number}: {line}")

    def state(self, run: Run) -> None:
        line = f"{run.state}" + (f": {run.reason}" if run.reason else "")
        if line != self.said and (run.state.is_standing or run.state is RunState.WAITING):
            say(line)
        self.said = line


class Bar:
    """Step of total, loss, speed and the time left."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("getting ready", total=None, loss="", speed="")

    def event(self, segment: Segment, event: Mapping[str, Any]) -> None:
        if event["kind"] == "step":
            self.progress.update(
                self.task,
                completed=event["step"],
                total=event["step_total"],
                description="training",
                loss=f"loss {event['loss']:.4f}",
                speed=f"{event['tokens_per_s']:,.0f} tok/s, {clock_of(event.get('eta_s'))} left",
            )
        elif event["kind"] != "checkpoint" and (line := line_of(event)):
            self.progress.console.print(f"segment {segment.number}: {line}", highlight=False, markup=False)

    def state(self, run: Run) -> None:
        if run.state not in (RunState.RUNNING, RunState.QUEUED):
            self.progress.update(self.task, description=f"{run.state}" + (f": {run.reason}" if run.reason else ""))


def clock_of(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds is not None else "?"


def line_of(event: Mapping[str, Any]) -> str | None:
    """An event for a person; None for one that says nothing new."""
    match event["kind"]:
        case "started":
            return f"on {event['accelerator_count']} x {event['accelerator']}, {event.get('precision', '?')}"
        case "loaded" if event["phase"] == "corpus":
            return f"{event['examples']} examples, {event['tokens']} tokens, {event['step_total']} steps"
        case "loaded":
            return f"{event['phase']} loaded in {event['seconds']:.1f} s"
        case "checkpoint":
            return f"checkpoint at step {event['step']}"
        case "warning":
            return f"warning: {event['message']}"
        case "ended":
            return f"{event['outcome']} at step {event['step']} ({event['reason']})"
    return None


def stands_at(events: Sequence[Mapping[str, Any]]) -> str:
    """How far a segment under way is, by all that its trainer said; nothing before its first word."""
    step = next((event for event in reversed(events) if event["kind"] == "step"), None)
    if step is not None:
        return f"step {step['step']} of {step['step_total']}, loss {step['loss']:.4f}"
    return next((line for event in reversed(events) if (line := line_of(event))), "")


class Watch:
    """Follows one run in the store from now on, whoever carries it; where nobody does, this process does."""

    def __init__(self, training: Training, run_id: str) -> None:
        self.training = training
        self.run_id = run_id
        self.seen: dict[str, int] = {}
        self.open = ExitStack()
        self.looked_for_engine = 0.0

    def __enter__(self) -> Self:
        runs = self.training.stores.runs
        for segment in runs.segments(self.run_id):
            events = runs.events(segment.key)
            self.seen[segment.key] = max((int(event["seq"]) for event in events), default=-1)
            if not segment.state.is_final:
                words = [str(segment.state), stands_at(events)]
                say(f"segment {segment.number}: on {segment.backend}, {', '.join(word for word in words if word)}")
        self.show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.close()

    def until_it_stands(self) -> Run:
        """Its last state: done, failed, paused or cancelled. KeyboardInterrupt passes."""
        while True:
            self._take_over_if_nobody_carries_it()
            run = self.look()
            if run.state.is_standing:
                return run
            time.sleep(LOOK_EVERY_S)

    def show(self) -> None:
        """Begin to show it, or begin again after the terminal was needed for a question."""
        self.view = self._view()

    def look(self) -> Run:
        runs = self.training.stores.runs
        run = runs.get(self.run_id)
        for segment in runs.segments(self.run_id):
            after = self.seen.get(segment.key, -1)
            for event in runs.events(segment.key, after):
                self.view.event(segment, event)
                self.seen[segment.key] = int(event["seq"])
        self.view.state(run)
        return run

    def _take_over_if_nobody_carries_it(self) -> None:
        from elias.errors import Refused

        if time.monotonic() - self.looked_for_engine < TAKE_OVER_EVERY_S:
            return
        self.looked_for_engine = time.monotonic()
        try:
            self.training.launch()
        except Refused:
            return  # another process is this node's engine, and carries the run

    def _view(self) -> View:
        if not sys.stderr.isatty():
            return Lines()
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        words = (TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[speed]}"))
        return Bar(self.open.enter_context(Progress(*columns, *words, console=Console(stderr=True))))
