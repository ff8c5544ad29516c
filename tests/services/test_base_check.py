"""A base that cannot be trained is refused before anything is queued, each in its own words."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from elias.errors import EliasError, InputError, NotFound, Refused
from elias.services.base_check import check_base
from elias_trainer.contract import STARTER, TINY, BaseModel


def safetensors(data: bytes = b"\0" * 8) -> bytes:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


WHOLE = {"model.safetensors": safetensors(), "config.json": b'{"hidden_size": 8}', "tokenizer.json": b"{}"}
CODE = {"config.json": b'{"auto_map": {"AutoConfig": "own.py"}}'}
GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 4, 7)


def made(tmp_path: Path, files: dict[str, bytes | None]) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    for name, data in (WHOLE | files).items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def test_a_whole_folder_the_known_names_and_hub_ids_pass(tmp_path):
    for reference in (str(made(tmp_path, {})), STARTER, TINY, "owner/model"):
        check_base(BaseModel(reference=reference))
    (tmp_path / "model.gguf").write_bytes(GGUF)
    check_base(BaseModel(reference=str(tmp_path / "model.gguf")))


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"model.safetensors": None}, InputError, "no .safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": b"x"}, Refused, "can run code"),
        ({"model.safetensors": safetensors(b"\0" * 3)}, InputError, "its header speaks of"),
        ({"model.safetensors": b"<html>404</html>"}, InputError, "no whole safetensors"),
        ({"model.safetensors": b""}, InputError, "no whole safetensors"),
        ({"config.json": None}, InputError, "config.json is missing"),
        ({"config.json": b"{"}, InputError, "not JSON"),
        ({"config.json": b"[]"}, InputError, "no configuration"),
        ({"tokenizer.json": None}, InputError, "no tokenizer"),
        (CODE, Refused, "auto_map"),
        ({"tokenizer_config.json": CODE["config.json"]}, Refused, "auto_map"),
    ],
)
def test_a_folder_that_cannot_be_trained_says_what_is_wrong_and_what_helps(tmp_path, files, error, says):
    with pytest.raises(error, match=says) as caught:
        check_base(BaseModel(reference=str(made(tmp_path, files))))
    assert type(caught.value) is error and caught.value.fix


def test_code_that_was_allowed_passes(tmp_path):
    check_base(BaseModel(reference=str(made(tmp_path, CODE)), allow_code=True))


@pytest.mark.parametrize("data", [b"", b"GGUF", b"<html>", struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)])
def test_a_broken_gguf_file_is_named(tmp_path, data):
    (tmp_path / "broken.gguf").write_bytes(data)
    with pytest.raises(InputError, match=r"broken\.gguf is no GGUF"):
        check_base(BaseModel(reference=str(tmp_path / "broken.gguf")))


@pytest.mark.parametrize("reference", ["./absent", "/absent", "~/absent", "absent.gguf"])
def test_a_path_that_leads_nowhere_is_not_found(reference):
    with pytest.raises(NotFound, match="no base model at"):
        check_base(BaseModel(reference=reference))


@pytest.mark.parametrize("reference", ["nothing", "start", "owner/model/more"])
def test_a_name_that_is_neither_known_nor_a_hub_id_is_not_found(reference):
    with pytest.raises(NotFound, match="no base model called") as told:
        check_base(BaseModel(reference=reference))
    assert "owner/name" in str(told.value.fix)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(EliasError, match="is no model"):
        check_base(BaseModel(reference=str(tmp_path / "weights.bin")))


def test_offline_a_hub_id_must_be_in_the_hubs_cache(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    base = BaseModel(reference="owner/model")
    with pytest.raises(NotFound, match="HF_HUB_OFFLINE"):
        check_base(base, environment)
    (tmp_path / "models--owner--model" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "models--owner--model" / "snapshots" / "abc" / "config.json").touch()
    check_base(base, environment)
