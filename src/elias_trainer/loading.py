"""Everything that a segment needs in memory before its first step."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from elias_trainer import adapter
from elias_trainer.base import LoadedBase, find_base, load_base, model_folder
from elias_trainer.checkpoint import MANIFEST, Start
from elias_trainer.contract import EventKind, FailureKind, Job, Method, Precision
from elias_trainer.device import Device, exceeds_one_device, find_device, make_deterministic, versions
from elias_trainer.events import Events
from elias_trainer.examples import Rows, read_examples
from elias_trainer.failures import Refusal
from elias_trainer.inputs import inside
from elias_trainer.ledger import Ledger
from elias_trainer.ranks import Ranks, ranks_from_environment
from elias_trainer.schedule import Plan

_FIRST_LOSS_SCALE = 2.0**8
"""The loss is a sum over a step's tokens, so the usual 2**16 for a mean would overflow float16 at once."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Work:
    """What the loop works with; only the model's and the optimizer's contents change."""

    job: Job
    base: LoadedBase
    model: nn.Module
    parameters: dict[str, nn.Parameter]
    """Those that are trained, by name."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    """For float16 alone."""
    plan: Plan
    device: Device
    ranks: Ranks

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: the trained weights and what the optimizer knows of each."""
        found = {}
        for name, parameter in self.parameters.items():
            found[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self.optimizer.state[parameter].items():
                found[f"optimizer/{key}/{name}"] = value.detach().cpu().contiguous()
        return found


def load(job: Job, folder: Path, cache: Path | None, events: Events, ledger: Ledger, start: Start | None) -> Work:
    """Base, corpus and checkpoint, in that order, each announced. Raises Refusal."""
    ranks = ranks_from_environment()
    device = find_device(job.recipe, world_size=ranks.world_size, local_rank=ranks.local_rank)
    make_deterministic(device)
    ranks.join()
    device_map = _device_map(job, cache, device, ranks)
    if device_map is not None:
        device = dataclasses.replace(device, count=torch.cuda.device_count())
    _announce(job, device, ranks, events, ledger)
    with _first_then_others(ranks), _phase("base", events):
        base = _load_base(job, cache, device, device_map)
    ledger.base_digest = base.digest
    rows = _read_corpus(job, inside(folder, job.corpus.path), base, events)
    plan = Plan(rows, job.recipe)
    ledger.step_total = plan.step_total
    model = adapter.prepare(base, job.recipe)
    parameters = adapter.trainable(model)
    work = Work(
        job=job,
        base=base,
        model=model,
        parameters=parameters,
        optimizer=torch.optim.AdamW(
            parameters.values(), lr=job.recipe.learning_rate, weight_decay=job.recipe.weight_decay, fused=True
        ),
        scaler=_scaler(device),
        plan=plan,
        device=device,
        ranks=ranks,
    )
    if start is not None:
        with _phase("checkpoint", events):
            _resume(work, start)
    return work


def _device_map(job: Job, cache: Path | None, device: Device, ranks: Ranks) -> str | None:
    """Layers are spread when one process has several GPUs and the first cannot hold the model at work."""
    if not device.is_cuda or ranks.world_size > 1 or torch.cuda.device_count() < 2:
        return None
    files = model_folder(find_base(job.base, cache), job.base, cache)
    config = json.loads((files / "config.json").read_bytes())
    return "balanced" if exceeds_one_device(device, job.recipe, _parameters_in(files, config), config) else None


def _load_base(job: Job, cache: Path | None, device: Device, device_map: str | None) -> LoadedBase:
    return load_base(
        job.base,
        cache=cache,
        dtype=device.weights_dtype(job.recipe.method),
        quantize=job.recipe.method is Method.QLORA,
        device=device.torch_device,
        device_map=device_map,
    )


def _parameters_in(folder: Path, config: Mapping[str, Any]) -> int:
    is_half = (config.get("dtype") or config.get("torch_dtype")) in ("bfloat16", "float16")
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) // (2 if is_half else 4)


def _announce(job: Job, device: Device, ranks: Ranks, events: Events, ledger: Ledger) -> None:
    ledger.accelerator, ledger.accelerator_count = device.name, device.count
    ledger.precision, ledger.versions = device.precision.value, versions()
    matches = device.matches(job.expected_accelerator)
    events.emit(
        EventKind.STARTED,
        accelerator=device.name,
        accelerator_count=device.count,
        precision=device.precision.value,
        versions=dict(ledger.versions),
        expected_accelerator=job.expected_accelerator,
        matches=matches,
    )
    if not matches:
        events.warn(f"{job.expected_accelerator} was planned with, this is {device.name}")
    if job.recipe.precision not in (Precision.AUTO, device.precision):
        events.warn(f"{job.recipe.precision.value} was asked for; a CPU trains in {device.precision.value}")
    if ranks.world_size > job.recipe.accumulation:
        events.warn(
            f"{ranks.world_size} processes share {job.recipe.accumulation} micro-batches a step: "
            f"raise accumulation to {ranks.world_size} or more, else some of them only wait"
        )


def _read_corpus(job: Job, path: Path, base: LoadedBase, events: Events) -> Rows:
    started = time.monotonic()
    try:
        rows = read_examples(path, base.tokenizer, job.recipe)
    except ValueError as error:
        raise Refusal(FailureKind.USER, str(error), fix="mend what it names, then build the corpus again") from error
    events.emit(
        EventKind.LOADED,
        phase="corpus",
        seconds=round(time.monotonic() - started, 3),
        examples=len(rows),
        tokens=sum(row.tokens for row in rows),
        step_total=Plan(rows, job.recipe).step_total,
    )
    if rows.dropped:
        events.warn(f"{rows.dropped} examples have no weight or nothing to learn in sequence_length, and were left out")
    if rows.cut:
        events.warn(f"{rows.cut} examples were cut at {job.recipe.sequence_length} tokens (sequence_length)")
    return rows


def _resume(work: Work, start: Start) -> None:
    """Put the checkpoint's weights and optimizer state in place. Raises Refusal."""
    if start.base != work.base.digest:
        raise Refusal(
            FailureKind.VERIFICATION,
            f"{start.folder / MANIFEST} is of another base: {start.base}, this one is {work.base.digest}",
            fix="resume on the base that the run was started with",
        )
    tensors = load_file(start.tensors)
    by_name = work.parameters
    with torch.no_grad():
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "parameter":
                by_name[rest].copy_(value)
            else:
                slot, _, name = rest.partition("/")
                work.optimizer.state[by_name[name]][slot] = value.to(by_name[name].device)
    if work.scaler is not None and start.state.scaler is not None:
        work.scaler.load_state_dict(start.state.scaler)


def _scaler(device: Device) -> torch.amp.GradScaler | None:
    is_fp16 = device.precision is Precision.FP16
    return torch.amp.GradScaler(device.kind, init_scale=_FIRST_LOSS_SCALE) if is_fp16 else None


@contextmanager
def _first_then_others(ranks: Ranks) -> Iterator[None]:
    """The first process fills the cache, then the others read it."""
    if not ranks.is_first:
        ranks.wait()
    yield
    if ranks.is_first:
        ranks.wait()


@contextmanager
def _phase(name: str, events: Events) -> Iterator[None]:
    started = time.monotonic()
    yield
    events.emit(EventKind.LOADED, phase=name, seconds=round(time.monotonic() - started, 3))
