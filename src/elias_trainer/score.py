"""Held-out loss of a base and of adapters on it, over the very same tokens.

    python -m elias_trainer score --job score.json --out DIR [--cache DIR] [--threads N]

`score.json` is a contract.ScoreJob, its paths relative to its folder; `scores.jsonl` appears in DIR when all of it is
known. Exit codes: 0 done, 2 the user can fix it, 4 something is not what it claims to be, 5 the world.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from elias_trainer.contract import (
    Digest,
    EventKind,
    FailureKind,
    Outcome,
    ScoreJob,
    canonical_json,
    digest_file,
    from_json,
    tree_digest,
    write_whole,
)
from elias_trainer.events import Events
from elias_trainer.failures import Refusal, exit_code, failure_of

if TYPE_CHECKING:
    from elias_trainer.base import LoadedBase
    from elias_trainer.batches import Document
    from elias_trainer.contenders import Contender

SCORES, EVENTS = "scores.jsonl", "score-events.jsonl"
_REPORT_EVERY_S = 1.0


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        events = Events(options.out / EVENTS)
        job = _read_job(options.job)
        _verify(job, options.job.parent)
        lines = _score(job, options, events)
        write_whole(options.out / SCORES, b"".join(canonical_json(line) + b"\n" for line in lines))
        events.emit(EventKind.ENDED, outcome=Outcome.DONE.value, reason="scored", step=len(lines))
    except (Refusal, OSError, RuntimeError, MemoryError, ImportError) as error:
        failure = failure_of(error)
        print(f"error: {failure.message}\n  fix: {failure.fix}", file=sys.stderr)
        return exit_code(failure)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="elias_trainer score", description="Held-out loss of a base and adapters.")
    parser.add_argument("--job", type=Path, required=True, help="score.json; its paths are relative to its folder")
    parser.add_argument("--out", type=Path, required=True, help=f"where {SCORES} goes")
    parser.add_argument("--cache", type=Path, help="where converted models are kept")
    parser.add_argument("--threads", type=int, help="CPU threads; all of them where not given")
    return parser


def _read_job(path: Path) -> ScoreJob:
    try:
        job = from_json(ScoreJob, path.read_bytes())
    except FileNotFoundError as error:
        raise Refusal(FailureKind.USER, f"there is no {path}", fix="give --job the path of a score.json") from error
    except ValueError as error:
        raise Refusal(FailureKind.USER, f"{path}: {error}", fix="write it with this version of ELIAS") from error
    if job.batch_size < 1 or job.sequence_length < 2:
        raise Refusal(
            FailureKind.USER, f"{path}: no batch or sequence is that small", fix="batch_size 4, sequence_length 1024"
        )
    return job


def _verify(job: ScoreJob, folder: Path) -> None:
    """Before anything heavy is imported, every input is compared with its digest."""
    for given in (job.corpus, *job.adapters):
        path = folder / given.path
        if not path.exists():
            raise Refusal(FailureKind.VERIFICATION, f"{path} is missing", fix="put it back, or leave it out")
        found = _digest(path)
        if found != given.digest:
            raise Refusal(
                FailureKind.VERIFICATION,
                f"{path} has the digest {found}, the job names {given.digest}: it is another file",
                fix="bring it again from where its digest was taken",
            )


def _digest(path: Path) -> Digest:
    try:
        return tree_digest(path) if path.is_dir() else digest_file(path)
    except ValueError as error:
        raise Refusal(FailureKind.VERIFICATION, str(error), fix="replace the link by the file itself") from error


def _score(job: ScoreJob, options: argparse.Namespace, events: Events) -> list[dict[str, object]]:
    """Lines of scores.jsonl, in the corpus file's order."""
    import torch

    from elias_trainer.contenders import contenders

    if options.threads:
        torch.set_num_threads(options.threads)
    base = _load(job, options.cache, events)
    documents = _documents(job, options.job.parent, base, events)
    batches = _batches(documents, job.batch_size)
    adapters = [(given.path, options.job.parent / given.path) for given in job.adapters]
    pace = _Pace(events, total=len(batches) * (1 + len(adapters)))
    found: dict[str, list[float]] = {}
    for contender in contenders(base, adapters, allow_code=job.base.allow_code):
        found[contender.name] = _losses(contender, base, documents, batches, pace)
    return [
        {
            "example": document.example,
            "tokens": document.trained,
            "nll": {name: losses[index] for name, losses in found.items()},
        }
        for index, document in enumerate(documents)
    ]


def _load(job: ScoreJob, cache: Path | None, events: Events) -> LoadedBase:
    from elias_trainer.base import load_base
    from elias_trainer.contract import Method, Recipe
    from elias_trainer.device import find_device, versions

    started = time.monotonic()
    device = find_device(Recipe(), world_size=1, local_rank=0)
    events.emit(
        EventKind.STARTED,
        accelerator=device.name,
        accelerator_count=device.count,
        precision=device.precision.value,
        versions=dict(versions()),
        expected_accelerator=None,
        matches=True,
    )
    base = load_base(job.base, cache=cache, dtype=device.weights_dtype(Method.LORA), device=device.torch_device)
    events.emit(EventKind.LOADED, phase="base", seconds=round(time.monotonic() - started, 3))
    return base


def _documents(job: ScoreJob, folder: Path, base: LoadedBase, events: Events) -> list[Document]:
    """Examples with something to score; preference pairs have none, since nothing says which answer was given."""
    from elias_trainer.examples import documents, read_lines

    started, path = time.monotonic(), folder / job.corpus.path
    try:
        lines = list(read_lines(path))
        plain = [line for line in lines if line.answers is None]
        made = [document for document, _ in documents(plain, base.tokenizer, job.sequence_length)]
    except ValueError as error:
        raise Refusal(FailureKind.USER, str(error), fix="mend what it names, then build the corpus again") from error
    kept = [document for document in made if document.trained]
    if not kept:
        raise Refusal(
            FailureKind.USER,
            f"{path} has no example that can be scored, of {len(lines)}",
            fix="add held-out examples that end with an answer, or raise sequence_length",
        )
    tokens = sum(map(len, kept))
    events.emit(
        EventKind.LOADED,
        phase="corpus",
        seconds=round(time.monotonic() - started, 3),
        examples=len(kept),
        tokens=tokens,
        step_total=math.ceil(len(kept) / job.batch_size) * (1 + len(job.adapters)),
    )
    if len(kept) < len(lines):
        events.warn(f"{len(lines) - len(kept)} examples are pairs or have no answer within sequence_length; left out")
    return kept


def _batches(documents: Sequence[Document], size: int) -> list[list[int]]:
    """Indexes of documents of about the same length, the longest first: too little memory shows at once."""
    order = sorted(range(len(documents)), key=lambda index: (-len(documents[index]), index))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _losses(
    contender: Contender, base: LoadedBase, documents: Sequence[Document], batches: Sequence[list[int]], pace: _Pace
) -> list[float]:
    """Nats of each document, summed over its trained tokens in double precision."""
    import numpy as np
    import torch

    from elias_trainer.batches import Packed, collate
    from elias_trainer.objectives import token_losses

    model = contender.open()
    device = next(model.parameters()).device
    found = [math.nan] * len(documents)
    for indexes in batches:
        rows = [Packed(documents=(documents[index],)) for index in indexes]
        batch = collate(rows, base.tokenizer.pad_token_id, device)
        with torch.inference_mode():
            nats = token_losses(model, batch).double().cpu().numpy()
        lines = (batch.at // batch.kept).cpu().numpy()
        for index, total in zip(indexes, np.bincount(lines, weights=nats, minlength=len(rows)), strict=True):
            found[index] = float(total)
        pace.report(contender.name, batch.tokens)
    if not all(map(math.isfinite, found)):
        raise Refusal(
            FailureKind.VERIFICATION,
            f"{contender.name} gives losses that are not numbers: its weights are broken",
            fix="leave it out, and look at how it was trained",
        )
    return found


class _Pace:
    """Speed since the start, as events; at most one a second, and the last."""

    def __init__(self, events: Events, *, total: int) -> None:
        self._events, self._total = events, total
        self._done = self._tokens = 0
        self._started = self._reported = time.monotonic()

    def report(self, contender: str, tokens: int) -> None:
        self._done, self._tokens = self._done + 1, self._tokens + tokens
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY_S and self._done < self._total:
            return
        self._reported, spent = now, max(now - self._started, 1e-9)
        self._events.emit(
            EventKind.STEP,
            step=self._done,
            step_total=self._total,
            contender=contender,
            tokens=self._tokens,
            tokens_per_s=round(self._tokens / spent, 1),
            eta_s=round((self._total - self._done) * spent / self._done, 1),
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
