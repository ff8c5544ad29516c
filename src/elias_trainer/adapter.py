"""What is trained: an adapter on a frozen base, or the base itself; and how the result is written, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, prepare_model_for_kbit_training
from safetensors.torch import save_file
from torch import Tensor, nn

from elias_trainer.base import LoadedBase
from elias_trainer.contract import FailureKind, Job, Method, Recipe, canonical_json, write_whole
from elias_trainer.failures import Refusal
from elias_trainer.folders import whole_folder

_VARIES = {"peft_version", "transformers_version", "_name_or_path", "auto_mapping", "revision"}
"""Left out of the configurations: what depends on where and with which release they were written."""


def prepare(base: LoadedBase, recipe: Recipe) -> nn.Module:
    """The model ready to train, its new parameters drawn from the recipe's seed. Raises Refusal."""
    model: Any = base.model
    model.config.use_cache = False
    if recipe.method is Method.QLORA:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call] # peft has no types there
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if recipe.method is not Method.FULL:
        model = _with_adapter(model, recipe)
    prepared: nn.Module = model.train()
    return prepared


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of those that training changes."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def export(model: nn.Module, base: LoadedBase, job: Job, out: Path) -> Path:
    """Write `out/adapter`, whole: the adapter and its configuration, or for `full` the model and its tokenizer."""
    folder = out / "adapter"
    with whole_folder(folder) as scratch:
        if job.recipe.method is Method.FULL:
            _save_model(model, base.tokenizer, scratch)
        else:
            _save_adapter(model, job, scratch)
    return folder


def _with_adapter(model: nn.Module, recipe: Recipe) -> nn.Module:
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=sorted(recipe.target_modules),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    try:
        adapted: nn.Module = get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise Refusal(
            FailureKind.USER,
            f"no adapter can be put on this base: {error}",
            fix="set target_modules to names of its linear layers",
        ) from error
    for parameter in trainable(adapted).values():
        parameter.data = parameter.data.float()
    return adapted


def _save_adapter(model: Any, job: Job, folder: Path) -> None:
    weights: Mapping[str, Tensor] = get_peft_model_state_dict(model)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = model.peft_config["default"].to_dict() | {
        "base_model_name_or_path": job.base.reference,
        "inference_mode": True,
    }
    write_whole(folder / "adapter_config.json", canonical_json(_plain(config)))


def _save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="10TB")
    tokenizer.save_pretrained(folder)
    for path in sorted(folder.glob("*config.json")):
        write_whole(path, canonical_json(_plain(json.loads(path.read_bytes()))))


def _plain(value: Any) -> Any:
    """As JSON with one order: sets sorted, and what varies left out."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key not in _VARIES}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
