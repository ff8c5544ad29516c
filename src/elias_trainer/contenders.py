"""What is compared in a score: the base, and each adapter on it or each model that was fully fine-tuned from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from elias_trainer.base import LoadedBase
from elias_trainer.contract import BaseModel, FailureKind
from elias_trainer.failures import Refusal
from elias_trainer.reference import refuse_unsafe

BASE = "base"
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    name: str
    """`base`, or the adapter's path as the job has it."""
    open: Callable[[], nn.Module]
    """Makes the model ready; it is as it should be until the next contender's is."""


def contenders(base: LoadedBase, adapters: Sequence[tuple[str, Path]], *, allow_code: bool) -> Iterator[Contender]:
    """The base first. One model's weights serve the base and all adapters; a whole model is loaded when its turn comes.

    Opening one raises Refusal where its files are not what they should be.
    """
    yield Contender(name=BASE, open=lambda: base.model)
    stack = _Stack(base.model)
    is_adapter = {name: (folder / _CONFIG).exists() for name, folder in adapters}
    for name, folder in adapters:
        if is_adapter[name]:
            yield Contender(name=name, open=partial(stack.switch_to, folder))
    for name, folder in adapters:
        if not is_adapter[name]:
            yield Contender(name=name, open=partial(_load_whole, base, folder, allow_code=allow_code))


class _Stack:
    """The base with one adapter on it at a time."""

    def __init__(self, base: nn.Module) -> None:
        self._base = base
        self._model: Any = None

    def switch_to(self, folder: Path) -> nn.Module:
        config, weights = _read(folder)
        if self._model is not None:
            self._base = self._model.unload()
        try:
            self._model = get_peft_model(self._base, config)
            found: Any = set_peft_model_state_dict(self._model, weights)
        except (ValueError, RuntimeError) as error:
            raise _does_not_fit(folder, str(error).splitlines()[0]) from error
        absent = [name for name in found.missing_keys if "lora_" in name]
        if absent or found.unexpected_keys:
            raise _does_not_fit(folder, f"missing {absent[:1]}, unexpected {found.unexpected_keys[:1]}")
        opened: nn.Module = self._model.eval()
        return opened


def _does_not_fit(folder: Path, why: str) -> Refusal:
    return Refusal(
        FailureKind.VERIFICATION,
        f"{folder} does not fit the base: {why}",
        fix="score it on the base that it was trained on",
    )


def _read(folder: Path) -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """Never from anything but JSON and safetensors, which cannot run code."""
    try:
        raw = json.loads((folder / _CONFIG).read_bytes())
        weights = load_file(folder / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise Refusal(
            FailureKind.VERIFICATION, f"{folder} is not a whole adapter: {error}", fix="fetch the adapter again"
        ) from error
    if raw.get("peft_type") != "LORA":
        raise Refusal(
            FailureKind.USER, f"{folder / _CONFIG} is of kind {raw.get('peft_type')!r}", fix="only LORA can be scored"
        )
    config: LoraConfig = LoraConfig.from_peft_type(**raw)  # type: ignore[no-untyped-call] # peft has no types there
    config.inference_mode = True
    return config, weights


def _load_whole(base: LoadedBase, folder: Path, *, allow_code: bool) -> nn.Module:
    refuse_unsafe(folder, BaseModel(reference=str(folder), allow_code=allow_code))
    parameter = next(base.model.parameters())
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            folder, dtype=parameter.dtype, use_safetensors=True, trust_remote_code=allow_code
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise Refusal(
            FailureKind.VERIFICATION, f"{folder} is not a whole model: {error}", fix="fetch the model again"
        ) from error
    return model.to(parameter.device).eval()
