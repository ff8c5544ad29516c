"""One side of the trainer's benchmark, in a process of its own: ELIAS's loop, a bare PyTorch loop, or TRL.

Trains the same model on the same batches in the same order, and waits for its turn after every few steps, so that the
sides can be timed in alternation and each has a peak memory of its own. Started by trainer.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS_BEFORE = 2
"""Left out of the timing: the first steps allocate."""


def resident_peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Turns:
    """Counts steps, and between turns reports the last and waits for the next."""

    def __init__(self, steps: int, peak_bytes: Callable[[], int] = resident_peak_bytes) -> None:
        self._steps, self._peak_bytes = steps, peak_bytes
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        # What libraries and events print goes nowhere, but is printed all the same.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self._done = -STEPS_BEFORE
        self._tokens = 0
        self._started = 0.0

    def step_done(self, tokens: int) -> None:
        now = time.perf_counter()
        self._done += 1
        self._tokens += tokens
        if self._done < 0 or self._done % self._steps:
            return
        self._answer({"seconds": now - self._started, "tokens": self._tokens} if self._done else {"ready": True})
        if not sys.stdin.readline():
            sys.exit("whoever measures is gone")
        self._tokens, self._started = 0, time.perf_counter()

    def end(self) -> None:
        self._answer({"peak_bytes": self._peak_bytes()})

    def _answer(self, value: dict[str, Any]) -> None:
        self._answers.write(json.dumps(value) + "\n")


def ours(job: Any, folder: Path, cache: Path, turns: Turns) -> None:
    """The trainer's own loop, whole: events, clipping, checks for a stop, the keeper of checkpoints."""
    from elias_trainer import loading

    run_loop(job, folder, turns, lambda events, ledger: loading.load(job, folder, cache, events, ledger, None))


def run_loop(job: Any, folder: Path, turns: Turns, load: Callable[[Any, Any], Any]) -> None:
    from elias_trainer import loop
    from elias_trainer.checkpoint import State
    from elias_trainer.contract import EventKind
    from elias_trainer.events import Events
    from elias_trainer.ledger import Ledger
    from elias_trainer.stopping import Stop

    class TimedEvents(Events):
        def emit(self, kind: EventKind, **fields: Any) -> None:
            super().emit(kind, **fields)
            if kind is EventKind.STEP:
                turns.step_done(fields["tokens"])

    out = folder / "out"
    out.mkdir()
    events, ledger = TimedEvents(out / "events.jsonl"), Ledger(job=job, state=State(segment=job.segment))
    with Stop() as stop:
        loop.train(load(events, ledger), out, stop, events, ledger)


def bare(job: Any, folder: Path, cache: Path, turns: Turns) -> None:
    """What anyone would write; its tensors are made beforehand, so that it has nothing to do but compute."""
    import torch

    base, model, plan = prepared(job, folder, cache)
    pad_id = base.tokenizer.pad_token_id
    batches = [padded(plan.micro_batches(step)[0], pad_id) for step in range(plan.step_total)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=job.recipe.learning_rate, weight_decay=0.0, fused=True)
    for batch in batches:
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, job.recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done(int(batch["attention_mask"].sum()))


def trl(job: Any, folder: Path, cache: Path, turns: Turns) -> None:
    base, model, plan = prepared(job, folder, cache)
    run_trl(job, folder, turns, (model, base.tokenizer, plan), use_cpu=True, bf16=False)


def run_trl(job: Any, folder: Path, turns: Turns, work: tuple[Any, Any, Any], **more: Any) -> None:
    """`work` is the model, the tokenizer and the plan; its rows hold one document each."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, plan = work
    steps = [plan.micro_batches(step)[0] for step in range(plan.step_total)]
    documents = [row.documents[0] for rows in steps for row in rows]
    columns = [{"input_ids": one.input_ids.tolist(), "labels": one.labels.tolist()} for one in documents]

    class Timed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            turns.step_done(sum(row.tokens for row in steps[state.global_step - 1]))

    settings = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=plan.step_total,
        per_device_train_batch_size=job.recipe.batch_size,
        learning_rate=job.recipe.learning_rate,
        max_grad_norm=job.recipe.max_grad_norm,
        max_length=job.recipe.sequence_length,
        activation_checkpointing=job.recipe.gradient_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **more,
    )
    SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(columns),
        processing_class=tokenizer,
        callbacks=[Timed()],
    ).train()


def prepared(job: Any, folder: Path, cache: Path) -> tuple[Any, Any, Any]:
    """The base, the model with its adapter, and the plan of batches, as the trainer makes them."""
    import torch

    from elias_trainer import adapter
    from elias_trainer.base import load_base
    from elias_trainer.examples import read_examples
    from elias_trainer.schedule import Plan

    base = load_base(job.base, cache=cache, dtype=torch.float32)
    rows = read_examples(folder / job.corpus.path, base.tokenizer, job.recipe)
    return base, adapter.prepare(base, job.recipe), Plan(rows, job.recipe)


def padded(rows: list[Any], pad_id: int) -> dict[str, Any]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    documents = [row.documents[0] for row in rows]

    def stacked(values: list[Any], padding: int) -> Any:
        tensors = [torch.as_tensor(value).long() for value in values]
        return pad_sequence(tensors, batch_first=True, padding_value=padding)

    return {
        "input_ids": stacked([one.input_ids for one in documents], pad_id),
        "attention_mask": stacked([torch.ones(len(one)) for one in documents], 0),
        "labels": stacked([one.labels for one in documents], -100),
    }


SIDES: dict[str, Callable[[Any, Path, Path, Turns], None]] = {"ours": ours, "bare": bare, "trl": trl}


def main() -> None:
    from elias_trainer.contract import Job, from_json

    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=sorted(SIDES), required=True)
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--steps-per-turn", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    turns = Turns(options.steps_per_turn)
    import torch

    torch.set_num_threads(options.threads)
    job = from_json(Job, options.job.read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / job.corpus.path).write_bytes((options.job.parent / job.corpus.path).read_bytes())
        SIDES[options.side](job, folder, options.cache, turns)
    turns.end()


if __name__ == "__main__":
    main()
