"""What an adapter may hold, whoever signed it."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from elias.errors import BadStructure
from elias.services.structure import IDLE, MEANT, check_structure

Q = "base_model.model.model.layers.1.self_attn.q_proj"


def refused(folder: Path, what: str) -> None:
    with pytest.raises(BadStructure) as caught:
        check_structure(folder)
    assert what in caught.value.what


def test_the_expected_adapter_passes(build, tmp_path):
    check_structure(build.adapter(tmp_path))


def test_every_key_that_peft_writes_is_known():
    """Read off the source of the PEFT that is installed, since importing it takes seconds."""
    root = Path(importlib.util.find_spec("peft").origin).parent
    keys = set()
    for source, classes in (
        ("config.py", ("PeftConfigMixin", "PeftConfig")),
        ("tuners/lora/config.py", ("LoraConfig",)),
    ):
        for node in ast.walk(ast.parse((root / source).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name in classes:
                keys |= {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    left_out_of_the_file = {"runtime_config"}
    assert len(keys) > 30
    assert keys - left_out_of_the_file <= MEANT | IDLE


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop(f"{Q}.lora_B.weight"), "layer 1 has no q_proj.lora_B"),
        (lambda t: [t.pop(name) for name in list(t) if ".0." in name], "a layer is missing; it has [1]"),
        (lambda t: t.update({f"{Q}.bias": np.zeros(8, np.float32)}), "does not belong in this adapter"),
        (lambda t: t.update({"lm_head.weight": np.zeros((2, 2), np.float32)}), "does not belong in this adapter"),
        (lambda t: t.update({f"{Q}.lora_A.weight": np.zeros((3, 8), np.float32)}), "not one of rank 2"),
        (lambda t: t.update({f"{Q}.lora_B.weight": np.zeros((2, 8), np.float32)}), "not one of rank 2"),
        (lambda t: t.update({f"{Q}.lora_A.weight": np.zeros(2, np.float32)}), "not one of rank 2"),
        (lambda t: t.update({f"{Q}.lora_A.weight": np.zeros((2, 8), np.float16)}), "not all of one type"),
        (lambda t: t.update({f"{Q}.lora_A.weight": np.zeros((2, 8), np.int32)}), "is of type 'I32'"),
        (lambda t: t[f"{Q}.lora_A.weight"].__setitem__((1, 7), np.nan), f"{Q}.lora_A.weight holds numbers"),
        (lambda t: t[f"{Q}.lora_B.weight"].__setitem__((0, 0), -np.inf), f"{Q}.lora_B.weight holds numbers"),
        (lambda t: t.clear(), "a layer is missing"),
    ],
)
def test_an_unexpected_tensor_is_named(build, tmp_path, change, what):
    tensors = build.tensors()
    change(tensors)
    refused(build.adapter(tmp_path, tensors), what)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_half_precision_is_searched_for_infinities_too(build, tmp_path, kind):
    build.adapter(tmp_path, {name: tensor.astype(np.float16) for name, tensor in build.tensors().items()})
    path = tmp_path / "adapter_model.safetensors"
    data = path.read_bytes().replace(b'"F16"', b'"BF16"' if kind == "BF16" else b'"F16"')
    grown = len(data) - path.stat().st_size
    header = int.from_bytes(data[:8], "little") + grown
    data = header.to_bytes(8, "little") + data[8:]
    path.write_bytes(data)
    check_structure(tmp_path)
    path.write_bytes(data[:-2] + (b"\x80\x7f" if kind == "BF16" else b"\x00\x7c"))
    refused(tmp_path, "not finite")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"auto_mapping": {"base_model_class": "X"}}, "'auto_mapping' must not be used"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' must not be used"),
        ({"use_dora": True}, "'use_dora' must not be used"),
        ({"surprise": None}, "'surprise' does not belong"),
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3'"),
        ({"bias": "all"}, "'bias' is 'all'"),
        ({"r": 0}, "'r' is 0"),
        ({"r": True}, "'r' is True"),
        ({"target_modules": "all-linear"}, "'target_modules' is not a list"),
    ],
)
def test_a_configuration_that_asks_for_more_is_refused(build, tmp_path, change, what):
    refused(build.adapter(tmp_path, **change), what)


def test_a_file_beside_the_adapter_is_refused(build, tmp_path):
    build.adapter(tmp_path)
    (tmp_path / "modeling.py").touch()
    refused(tmp_path, "modeling.py does not belong")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(build, tmp_path, name):
    build.adapter(tmp_path)
    (tmp_path / name).unlink()
    refused(tmp_path, f"{name} is missing")


HEADER = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    ("header", "data", "what"),
    [
        (HEADER, b"", "its tensors end at byte"),
        (HEADER, b"12345678", "its tensors end at byte"),
        ({"a": {**HEADER["a"], "data_offsets": [4, 8]}}, b"12345678", "does not begin where"),
        ({**HEADER, "b": HEADER["a"]}, b"1234", "does not begin where"),
        ({"a": {**HEADER["a"], "shape": [2]}}, b"1234", "its shape needs 8"),
        ({"a": {**HEADER["a"], "shape": [-1]}}, b"1234", "not a whole number"),
        ({"a": {**HEADER["a"], "extra": 1}}, b"1234", "is described by"),
        ({"a": {**HEADER["a"], "dtype": "F99"}}, b"1234", "is of type 'F99'"),
        ({"__metadata__": {"format": 3}, **HEADER}, b"1234", "metadata is not text"),
        ([], b"", "its header is broken"),
    ],
)
def test_a_broken_safetensors_header_is_refused(build, tmp_path, header, data, what):
    build.adapter(tmp_path)
    text = json.dumps(header).encode()
    (tmp_path / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    refused(tmp_path, what)


@pytest.mark.parametrize("data", [b"", b"1234567", (1 << 60).to_bytes(8, "little") + b"{}", b"\2" + b"\0" * 7 + b"{x"])
def test_a_file_that_is_no_safetensors_is_refused(build, tmp_path, data):
    build.adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(data)
    refused(tmp_path, "header")


def test_a_fully_trained_model_is_checked_as_a_model(tmp_path):
    save_file({"weight": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    check_structure(tmp_path)
    (tmp_path / "config.json").write_text('{"auto_map": {}}')
    refused(tmp_path, "'auto_map' asks for code")
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": np.full((2, 2), np.nan, np.float32)}, tmp_path / "model.safetensors")
    refused(tmp_path, "not finite")
    (tmp_path / "model.bin").touch()
    refused(tmp_path, "model.bin does not belong")
