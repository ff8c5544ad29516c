"""Bases: what `tiny` and `starter` are, and that a GGUF file is converted once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elias_trainer.base import load_base
from elias_trainer.contract import STARTER, TINY, BaseModel, base_digest, digest_file, file_digests, starter_gguf
from elias_trainer.tiny import write_tiny


def test_tiny_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    write_tiny(tmp_path / "one")
    torch.manual_seed(99)
    write_tiny(tmp_path / "two")
    assert file_digests(tmp_path / "one") == file_digests(tmp_path / "two")


def test_tiny_is_a_small_llama_that_speaks_in_bytes(cache: Path) -> None:
    loaded = load_base(BaseModel(reference=TINY), cache=cache, dtype=torch.float32)
    assert 800_000 < sum(weight.numel() for weight in loaded.model.parameters()) < 1_200_000
    assert loaded.digest == base_digest(loaded.location)
    tokenizer = loaded.tokenizer
    assert tokenizer.decode(tokenizer("Käse 🧀\n\tif x:")["input_ids"]) == "Käse 🧀\n\tif x:"
    assert tokenizer.pad_token != tokenizer.eos_token


def test_a_pinned_digest_that_is_right_is_accepted(cache: Path) -> None:
    first = load_base(BaseModel(reference=TINY), cache=cache, dtype=torch.float32)
    again = load_base(BaseModel(reference=TINY, digest=first.digest), cache=cache, dtype=torch.float32)
    assert again.digest == first.digest


def test_a_warmed_up_tiny_has_learned_something(tmp_path: Path, cache: Path) -> None:
    cold = load_base(BaseModel(reference=TINY), cache=cache, dtype=torch.float32)
    warm = load_base(
        BaseModel(reference=str(write_tiny(tmp_path / "warm", warm_steps=12))), cache=cache, dtype=torch.float32
    )
    text = cold.tokenizer("    return cats * 3", return_tensors="pt")["input_ids"]
    losses = [one.model(input_ids=text, labels=text).loss.item() for one in (cold, warm)]
    assert losses[1] < losses[0] - 1


@pytest.mark.slow
def test_the_starter_is_converted_once_and_its_digest_is_the_files(tmp_path: Path) -> None:
    first = load_base(BaseModel(reference=STARTER), cache=tmp_path, dtype=torch.float32)
    assert first.digest == digest_file(starter_gguf())
    written = (first.location / "model.safetensors").stat().st_mtime_ns
    again = load_base(BaseModel(reference=str(starter_gguf())), cache=tmp_path, dtype=torch.float32)
    assert (again.location, again.digest) == (first.location, first.digest)
    assert (again.location / "model.safetensors").stat().st_mtime_ns == written
    assert again.tokenizer.pad_token == "<|endoftext|>"
    assert again.tokenizer.eos_token == "<|im_end|>"
