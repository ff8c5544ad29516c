"""Loading a base model and its tokenizer, whatever its reference. Needs torch and transformers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from elias_trainer.contract import TINY, BaseModel, Digest, FailureKind
from elias_trainer.failures import Refusal
from elias_trainer.folders import whole_folder
from elias_trainer.reference import Located, checked_digest, default_cache, locate
from elias_trainer.tiny import NAME as TINY_NAME
from elias_trainer.tiny import write_tiny

_PAD_CANDIDATES = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens that no chat is made of, in order of preference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedBase:
    model: nn.Module
    tokenizer: Any
    digest: Digest
    """Of the GGUF file itself, or of the model's folder: never of a converted copy."""
    location: Path
    """The folder with safetensors that was loaded; for a GGUF file its converted copy in the cache."""


def load_base(
    base: BaseModel,
    *,
    cache: Path | None,
    dtype: torch.dtype,
    quantize: bool = False,
    device: str = "cpu",
    device_map: str | None = None,
) -> LoadedBase:
    """The model in evaluation mode, on `device` or spread by `device_map`; NF4 when `quantize`. Raises Refusal."""
    found = find_base(base, cache)
    folder = model_folder(found, base, cache)
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": base.allow_code}
    if quantize:
        options["quantization_config"] = _nf4(dtype)
    if quantize or device_map:
        options["device_map"] = device_map or {"": device}
    with _quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    if "device_map" not in options:
        model.to(device)
    _refuse_offloaded(model)
    tokenizer = load_tokenizer(folder, allow_code=base.allow_code)
    return LoadedBase(model=model.eval(), tokenizer=tokenizer, digest=found.digest, location=folder)


def find_base(base: BaseModel, cache: Path | None) -> Located:
    """Its files, checked against the digest that is asked for; `tiny` is made when it is not there yet."""
    home = cache or default_cache()
    if base.reference != TINY:
        return locate(base, home)
    folder = home / TINY_NAME
    if not folder.exists():
        write_tiny(folder)
    return Located(path=folder, digest=checked_digest(folder, base))


def model_folder(found: Located, base: BaseModel, cache: Path | None) -> Path:
    """A folder with safetensors: its own, or what its GGUF file was dequantized to, once, in float32."""
    if found.path.is_dir():
        return found.path
    folder = (cache or default_cache()) / found.digest.hex
    if not folder.exists():
        _convert_gguf(found.path, folder)
    return folder


def load_tokenizer(folder: Path, *, allow_code: bool = False) -> Any:
    """With a pad token, which where possible is none that a chat is made of."""
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=allow_code)
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        known = tokenizer.get_vocab()
        spare = [token for token in _PAD_CANDIDATES if token in known and token != tokenizer.eos_token]
        tokenizer.pad_token = spare[0] if spare else tokenizer.eos_token
    return tokenizer


def _convert_gguf(file: Path, folder: Path) -> None:
    from transformers import GgufConfig

    try:
        with whole_folder(folder) as scratch, _quiet():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise Refusal(
            FailureKind.USER,
            f"{file} is no GGUF model that can be trained: {error}",
            fix="fetch the file again, or take a base in safetensors",
        ) from error


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """The quantization of QLoRA (Dettmers et al. 2023, arXiv:2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _refuse_offloaded(model: nn.Module) -> None:
    if any(parameter.is_meta for parameter in model.parameters()):
        raise Refusal(
            FailureKind.CAPACITY,
            "the base model does not fit the memory of the accelerators here",
            fix="set method qlora, choose a smaller base, or take a place with more memory",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice of libraries between the events on the log; their errors still raise."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
