"""Held-out loss: what each contender pays for the very same answers, in nats a token."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.evaluators.heldout import group_of, read_examples
from elias.adapters.evaluators.scratch import scratch_folder
from elias.domain.corpus import Example, example_line
from elias.errors import DigestMismatch, EliasError, EngineError, InputError
from elias.ports.evaluator import Contender, EvaluatorContext, Measurement
from elias_trainer.contract import (
    EVENT_PREFIX,
    BaseModel,
    EventKind,
    Input,
    ScoreJob,
    digest_file,
    to_json,
    tree_digest,
)

METRIC = "heldout_loss"
TRAINER = (sys.executable, "-I", "-m", "elias.adapters.engines.child", "elias_trainer")
"""Tied to its standard input: it ends when this process does, however that went."""
TELL_EVERY_S = 5.0
_TAIL_CHARACTERS = 1500
_LINES_KEPT = 50
_TOLD = re.compile(r"^error: (?P<what>.*?)\n  fix: (?P<fix>.*)\Z", re.M | re.S)
_ERRORS: Mapping[int, type[EliasError]] = {2: InputError, 4: DigestMismatch}
"""By the program's exit code; any other is an EngineError."""


class HeldoutLoss:
    """Runs the trainer's `score` program once for all contenders; value = nats, weight = tokens of the answer."""

    lower_is_better = True

    def __init__(self, context: EvaluatorContext, trainer: Sequence[str] = TRAINER) -> None:
        self._context = context
        self._trainer = trainer
        self._most = context.bounds.examples
        self._notes: dict[str, str] = {}

    def measure(self, base: BaseModel, contenders: Sequence[Contender], heldout: Path) -> Sequence[Measurement]:
        """Raises EngineError with the end of what the program said; InputError or DigestMismatch where it said that."""
        self._notes = {}
        answered = (example for example in read_examples(heldout) if example.chosen is None)
        found = sorted(answered, key=lambda example: example.id)
        examples = {example.id: example for example in found[: self._most]}
        if not examples:
            self._notes["heldout_loss"] = "no held-out example has one answer to be scored"
            return ()
        with scratch_folder(self._context.home / "cache", "score-") as folder:
            job = ScoreJob(
                base=base,
                adapters=tuple(_brought(folder, c.name, c.adapter) for c in contenders if c.adapter is not None),
                corpus=_written(folder, "heldout.jsonl", examples.values()),
                sequence_length=self._context.sequence_length,
            )
            scores = self._score(job, folder)
        columns = {c.name: "base" if c.adapter is None else c.name for c in contenders}
        measurements = list(self._measurements(scores, examples, columns))
        tokens = {measurement.example: int(measurement.weight) for measurement in measurements}
        self._notes["heldout_loss"] = (
            f"{len(tokens)} of {len(found)} held-out examples (the first in order of id, at most {self._most}), "
            f"{sum(tokens.values())} tokens of their answers; prompt and answer cut at {job.sequence_length} tokens"
        )
        return measurements

    def notes(self) -> Mapping[str, str]:
        return dict(self._notes)

    def _score(self, job: ScoreJob, folder: Path) -> list[dict[str, Any]]:
        spec, out, cache = folder / "score.json", folder / "out", self._context.home / "cache" / "bases"
        spec.write_bytes(to_json(job))
        cache.mkdir(parents=True, exist_ok=True)
        command = [*self._trainer, "score", "--job", str(spec), "--out", str(out), "--cache", str(cache)]
        threads = str(self._context.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        ended = self._run(command, environment, folder / "stderr")
        if ended.returncode != 0:
            raise _failed(f"it ended with {ended.returncode}", ended)
        try:
            with (out / "scores.jsonl").open("rb") as lines:
                return [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise _failed(f"its scores.jsonl cannot be read ({error})", ended) from error

    def _run(
        self, command: Sequence[str], environment: Mapping[str, str], stderr: Path
    ) -> subprocess.CompletedProcess[str]:
        """To its end, telling how far it is; `stderr` is a file, so that neither stream can block the other."""
        said: deque[str] = deque(maxlen=_LINES_KEPT)
        told = time.monotonic()
        with (
            stderr.open("wb") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
                errors="replace",
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    if not line.startswith(EVENT_PREFIX):
                        said.append(line)
                    elif time.monotonic() - told > TELL_EVERY_S and (progress := _progress(line)):
                        told = time.monotonic()
                        self._context.tell(f"{METRIC}: {progress}")
            except BaseException:  # Ctrl-C
                process.kill()
                raise
            process.wait()
        text = stderr.read_bytes().decode("utf-8", errors="replace")
        return subprocess.CompletedProcess(command, process.returncode, "".join(said), text)

    def _measurements(
        self, scores: Iterable[dict[str, Any]], examples: Mapping[str, Example], columns: Mapping[str, str]
    ) -> Iterable[Measurement]:
        for line in scores:
            try:
                example, weight = examples[line["example"]], int(line["tokens"])
                values = {name: float(line["nll"][column]) for name, column in columns.items()}
            except (KeyError, TypeError, ValueError) as error:
                raise EngineError(
                    f"the score program left out something it was asked for: {error!r}",
                    fix="install node and trainer in the same version: pip install -U 'elias-node[node,train]'",
                ) from error
            if weight == 0:
                continue  # the prompt alone fills the sequence: no token of the answer was seen
            for name, value in values.items():
                yield Measurement(
                    metric=METRIC,
                    contender=name,
                    example=example.id,
                    value=value,
                    weight=weight,
                    group=group_of(example),
                )


def _progress(line: str) -> str | None:
    """Of a line that carries an event; None for one that says nothing new."""
    event = json.loads(line.removeprefix(EVENT_PREFIX))
    if event.get("kind") != EventKind.STEP:
        return None
    left = timedelta(seconds=round(event["eta_s"]))
    return f"{event['contender']}, {event['step']} of {event['step_total']} batches, {left} left"


def _written(folder: Path, name: str, examples: Iterable[Example]) -> Input:
    (folder / name).write_bytes(b"".join(map(example_line, examples)))
    return Input(path=name, digest=digest_file(folder / name))


def _brought(folder: Path, name: str, source: Path) -> Input:
    """A folder's files inside the job's folder, which a job never leaves; linked where the disk allows."""
    for path in source.rglob("*"):
        if path.is_file():
            _link(path, folder / name / path.relative_to(source))
    return Input(path=name, digest=tree_digest(folder / name))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)


def _failed(how: str, ended: subprocess.CompletedProcess[str]) -> EliasError:
    """The program's own words and fix where it gave them; else the end of what it said."""
    kind = _ERRORS.get(ended.returncode, EngineError)
    if told := _TOLD.search(ended.stderr):
        return kind(f"the held-out loss could not be measured: {told['what']}", fix=told["fix"].strip())
    if ended.returncode < 0:
        how = f"it was ended by {signal.Signals(-ended.returncode).name}"
    tail = (ended.stderr.strip() or ended.stdout.strip() or "it said nothing")[-_TAIL_CHARACTERS:]
    return kind(
        f"the held-out loss could not be measured: {how}\n{tail}",
        fix="see its last lines above; `elias doctor` tells whether the base and the memory for it are there",
    )
