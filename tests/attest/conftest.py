"""A trained run as it lies on the disk, made by hand: two segments and a small adapter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from elias.adapters.signing.identity import create_identity
from elias.adapters.signing.node_signer import NodeSigner
from elias.config import load
from elias.domain.label import Label
from elias.domain.run import Checkpoint, Run, Segment, SegmentState
from elias.services.attest import Attest
from elias.services.run_folder import RunFolder
from elias.units import Money
from elias.wiring.stores import open_stores
from elias_trainer.contract import (
    BaseModel,
    Digest,
    Input,
    Job,
    Outcome,
    Recipe,
    Result,
    canonical_json,
    digest_bytes,
    file_digests,
    to_json,
    write_whole,
)

SEED = bytes(range(32))
"""A seed for tests alone: golden files are signed with it."""
TARGETS = ("down_proj", "q_proj")
SIZES = {"q_proj": (8, 8), "down_proj": (12, 8)}
START = datetime(2026, 11, 24, 12, tzinfo=UTC)


class SteppingClock:
    def __init__(self) -> None:
        self.ticks = 0

    def now(self) -> datetime:
        self.ticks += 1
        return START + timedelta(seconds=self.ticks)

    def sleep(self, span: timedelta) -> None:
        raise AssertionError("nothing here waits")


def adapter_tensors(rank: int = 2, layers: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    found = {}
    for layer in range(layers):
        for module, (features_in, features_out) in SIZES.items():
            block = "mlp" if module == "down_proj" else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{block}.{module}"
            found[f"{name}.lora_A.weight"] = draw.normal(size=(rank, features_in)).astype(np.float32)
            found[f"{name}.lora_B.weight"] = draw.normal(size=(features_out, rank)).astype(np.float32)
    return found


def adapter_config(**changes: Any) -> dict[str, Any]:
    """What PEFT 0.21.2 writes, in the trainer's canonical form."""
    idle: dict[str, Any] = {key: {} for key in ("alpha_pattern", "loftq_config", "rank_pattern")}
    idle |= dict.fromkeys(["fan_in_fan_out", "lora_bias", "use_dora", "use_rslora", "use_qalora"], False)
    idle |= dict.fromkeys(["layers_pattern", "layers_to_transform", "modules_to_save", "eva_config"], None)
    meant = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "bias": "none", "r": 2}
    meant |= {"lora_alpha": 4, "lora_dropout": 0.0, "target_modules": list(TARGETS), "inference_mode": True}
    return {**idle, **meant, "init_lora_weights": True, "megatron_core": "megatron.core", **changes}


def write_adapter(folder: Path, tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = adapter_tensors() if tensors is None else tensors
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_whole(folder / "adapter_config.json", canonical_json(adapter_config(**changes)))
    return folder


@dataclass
class Trained:
    run: Run
    segments: list[Segment]
    out: Path


def trained_run(home: Path, run_id: str = "run-a", seed: int = 0) -> Trained:
    """Segment 1 paused at step 5, segment 2 was preempted with nothing to show, segment 3 finished at step 10."""
    run = Run(
        id=run_id,
        created_at=START,
        strategy="local",
        base=BaseModel(reference="tiny"),
        recipe=Recipe(rank=2, alpha=4, target_modules=TARGETS, max_steps=10),
        corpus=digest_bytes(b"corpus"),
        label=Label.PRIVATE,
    )
    folder = RunFolder(home / "runs" / run_id)
    five, ten = (
        Checkpoint(step=step, digest=digest_bytes(b"checkpoint %d" % step), path=f"step-{step}") for step in (5, 10)
    )
    write_adapter(folder.outputs(3) / "adapter", adapter_tensors(seed=seed))
    outputs = {f"adapter/{name}": digest for name, digest in file_digests(folder.outputs(3) / "adapter").items()}
    for number, start in ((1, None), (2, five), (3, five)):
        write_whole(folder.inputs(number) / "job.json", to_json(_job(run, number, start)))
    _write_result(folder, run, 1, Outcome.PAUSED, {})
    _write_result(folder, run, 3, Outcome.DONE, outputs)
    segments = [
        Segment(run=run_id, number=1, backend="local", state=SegmentState.PAUSED, end=five, cost=Money(3)),
        Segment(run=run_id, number=2, backend="elsewhere", state=SegmentState.FAILED, start=five),
        Segment(run=run_id, number=3, backend="local", state=SegmentState.DONE, start=five, end=ten, cost=Money(4)),
    ]
    return Trained(run=run, segments=segments, out=folder.outputs(3))


def _job(run: Run, number: int, start: Checkpoint | None) -> Job:
    return Job(
        run=run.id,
        segment=f"{run.id}-{number:04d}",
        base=run.base,
        corpus=Input(path="corpus.jsonl", digest=run.corpus),
        recipe=run.recipe,
        checkpoint=Input(path=f"checkpoint/{start.path}", digest=start.digest) if start else None,
        trainer=digest_bytes(b"trainer"),
    )


def _write_result(folder: RunFolder, run: Run, number: int, outcome: Outcome, outputs: dict[str, Digest]) -> None:
    step = 10 if outcome is Outcome.DONE else 5
    result = Result(
        run=run.id,
        segment=f"{run.id}-{number:04d}",
        outcome=outcome,
        reason="steps",
        step=step,
        step_total=10,
        started_at_step=step - 5,
        tokens=100,
        first_loss=3.5 - step / 10,
        last_loss=3.0 - step / 10,
        accelerator="cpu",
        accelerator_count=1,
        precision="fp32",
        base_digest=digest_bytes(b"base"),
        versions={"torch": "2.13.0"},
        seconds={"load": 0.1, "train": 1.2},
        outputs=outputs,
        checkpoint=None,
    )
    write_whole(folder.outputs(number) / "result.json", to_json(result))


def make_home(home: Path, seed: bytes = SEED) -> Path:
    (home / "identity").mkdir(parents=True)
    (home / "identity" / "seed").touch(0o600)
    (home / "identity" / "seed").write_text(seed.hex())
    create_identity(home / "identity")
    return home


@pytest.fixture
def home(tmp_path):
    """A node with the tests' own identity."""
    return make_home(tmp_path / "home")


@pytest.fixture
def signer(home):
    return NodeSigner(home / "identity")


@pytest.fixture
def attest(home, signer):
    with open_stores(load(environment={"ELIAS_HOME": str(home)})) as stores:
        yield Attest(artifacts=home / "artifacts", signer=signer, models=stores.models, clock=SteppingClock())


@pytest.fixture
def admitted(home, attest):
    """The folder of an artifact that was just taken in."""
    trained = trained_run(home)
    return attest.folder(attest.admit(trained.run, trained.segments, trained.out).digest)


@pytest.fixture(scope="session")
def build():
    """The builders above, for test modules: they cannot import this file."""

    class Build:
        home = staticmethod(make_home)
        run = staticmethod(trained_run)
        adapter = staticmethod(write_adapter)
        tensors = staticmethod(adapter_tensors)

    return Build
