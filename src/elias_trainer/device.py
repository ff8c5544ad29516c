"""What this process trains on, in which precision, and how much memory it has taken."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from elias_trainer.contract import FailureKind, Method, Objective, Precision, Recipe
from elias_trainer.failures import Refusal

_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "bitsandbytes", "numpy")
_ROOM = 0.9
"""Share of a device's free memory that a model may take before its layers are spread over all devices."""
_NF4_BYTES = 0.53
"""A quantized weight with its share of block scales, rounded up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    name: str
    """`cpu`, or what CUDA calls it."""
    count: int
    """Devices at work on this run, in all its processes."""
    torch_device: str
    precision: Precision
    """Never `auto`."""

    @property
    def is_cuda(self) -> bool:
        return self.torch_device != "cpu"

    @property
    def kind(self) -> str:
        """`cuda` or `cpu`."""
        return self.torch_device.partition(":")[0]

    def weights_dtype(self, method: Method) -> torch.dtype:
        """Of the base in memory: weights that are themselves trained stay in float32."""
        return torch.float32 if method is Method.FULL else _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        if self.precision is Precision.FP32:
            return nullcontext()
        return torch.autocast(self.kind, dtype=_DTYPES[self.precision])

    def matches(self, expected: str | None) -> bool:
        """Whether this is the accelerator that was planned with; `NvidiaTeslaT4` and `Tesla T4` are one."""
        ours, theirs = (re.sub(r"[^a-z0-9]", "", text.lower()) for text in (self.name, expected or ""))
        return expected is None or ours in theirs or theirs in ours

    def memory_bytes(self) -> int:
        """The most this process has held: on the GPU where there is one, else resident in RAM."""
        if self.is_cuda:
            return sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count()))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def find_device(recipe: Recipe, *, world_size: int, local_rank: int) -> Device:
    """CUDA where there is any, else the CPU, which computes in float32 alone. Raises Refusal."""
    if not torch.cuda.is_available():
        return Device(name="cpu", count=1, torch_device="cpu", precision=Precision.FP32)
    torch.cuda.set_device(local_rank)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    precision = recipe.precision
    if precision is Precision.AUTO:
        precision = Precision.BF16 if has_bf16 else Precision.FP16
    name = torch.cuda.get_device_name(local_rank)
    if precision is Precision.BF16 and not has_bf16:
        raise Refusal(FailureKind.USER, f"{name} has no bfloat16", fix="set precision to auto or fp16")
    return Device(name=name, count=world_size, torch_device=f"cuda:{local_rank}", precision=precision)


def make_deterministic(device: Device) -> None:
    """The same job gives the same bytes; on CUDA that has to be asked for, before its first kernel."""
    if device.is_cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # set by name
        torch.backends.cudnn.benchmark = False


def exceeds_one_device(device: Device, recipe: Recipe, parameters: int, config: Mapping[str, Any]) -> bool:
    """Whether weights, what is trained and a step's activations are too many for the first GPU.

    `config` is the base's config.json; what it does not say in Llama's words counts as nothing.
    """
    width = device.weights_dtype(recipe.method).itemsize
    weights = _weight_bytes(config, recipe, width, parameters)
    free, _ = torch.cuda.mem_get_info(0)
    return bool(weights + _trained_bytes(config, recipe) + _activation_bytes(config, recipe, width) > free * _ROOM)


def _weight_bytes(config: Mapping[str, Any], recipe: Recipe, width: int, parameters: int) -> float:
    if recipe.method is Method.FULL:
        return parameters * 16  # its gradients and optimizer state included
    if recipe.method is not Method.QLORA:
        return parameters * width
    tables = 1 if config.get("tie_word_embeddings") else 2
    embeddings = tables * int(config.get("vocab_size") or 0) * int(config.get("hidden_size") or 0)
    return (parameters - embeddings) * _NF4_BYTES + embeddings * 4  # PEFT holds in float32 what is not quantized


def _trained_bytes(config: Mapping[str, Any], recipe: Recipe) -> int:
    """An adapter in float32 with its gradients and optimizer state, as if it sat on every matrix of a layer."""
    if recipe.method is Method.FULL:
        return 0
    hidden, inner = (int(config.get(key) or 0) for key in ("hidden_size", "intermediate_size"))
    return int(config.get("num_hidden_layers") or 0) * recipe.rank * (8 * hidden + 3 * (hidden + inner)) * 16


def _activation_bytes(config: Mapping[str, Any], recipe: Recipe, width: int) -> int:
    """At the end of a forward pass (terms after Korthikanti et al. 2022, arXiv:2205.05198), dropout included."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    hidden, inner, layers, vocabulary = (int(config.get(name) or 0) for name in names)
    tokens = recipe.batch_size * recipe.sequence_length * (2 if recipe.objective is Objective.DPO else 1)
    between = tokens * hidden * (4 if recipe.method is Method.QLORA else width)
    within = tokens * (2 * hidden * (width + 4) + (6 * hidden + 4 * inner) * width)
    dropped = tokens * (6 * hidden + inner) * (width + 1) if recipe.dropout and recipe.method is not Method.FULL else 0
    head = tokens * vocabulary * (width + 8)
    if recipe.gradient_checkpointing:
        return layers * between + max(within + dropped, head)
    return layers * (between + within + dropped) + head


def versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found
