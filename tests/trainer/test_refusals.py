"""What the trainer refuses, before torch is imported, and how it says so."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from elias_trainer import archive
from elias_trainer.contract import (
    BaseModel,
    Digest,
    FailureKind,
    Input,
    Limits,
    Objective,
    Outcome,
    Result,
    base_digest,
    digest_bytes,
    digest_file,
)
from elias_trainer.failures import Refusal, failure_of
from elias_trainer.reference import locate
from elias_trainer.tiny import write_tiny
from tests.trainer.conftest import Forge, Place, Told

MakePlace = Callable[..., Place]
OTHER = digest_bytes(b"something else")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def refused(made: Place, *command: str) -> Result:
    """Run it where importing torch fails, so that a refusal that comes after the import is another one."""
    blocked = made.root / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise SystemExit('torch was imported before the inputs were checked')\n")
    environment = os.environ | {"PYTHONPATH": str(blocked)}
    words = command or (sys.executable, "-m", "elias_trainer")
    done = subprocess.run([*words, *made.argv], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    result = made.result
    assert result.outcome is Outcome.FAILED
    assert result.failure.kind is FailureKind.VERIFICATION
    assert result.failure.fix
    return result


def test_a_flipped_byte_in_the_corpus(place: MakePlace) -> None:
    made = place()
    flip(made.root / "in" / "corpus.jsonl")
    assert str(made.root / "in" / "corpus.jsonl") in refused(made).failure.message


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_a_flipped_byte_in_the_checkpoint(place: MakePlace, name: str) -> None:
    first = place("first", max_steps=2, limits=Limits(stop_at_step=1))
    assert first.run() == 0
    last = first.result.checkpoint
    second = place("second", max_steps=2, checkpoint=Input(path=last.path, digest=last.digest))
    shutil.copytree(first.out / last.path, second.root / "in" / last.path)
    flip(second.root / "in" / last.path / name)
    assert str(second.root / "in" / last.path / name) in refused(second).failure.message


def test_a_flipped_byte_in_the_archive(place: MakePlace) -> None:
    made = place()
    pyz = made.root / "in" / "trainer.pyz"
    made = made.rewrite(trainer=archive.build(pyz))
    _rewrite(pyz, b"The trainer's command line", b"Thy trainer's command line")
    assert str(pyz) in refused(made, sys.executable, str(pyz)).failure.message


def _rewrite(pyz: Path, text: bytes, other: bytes) -> None:
    """A whole archive with good checksums, that is another one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(pyz) as before, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as after:
        for entry in before.infolist():
            after.writestr(entry, before.read(entry).replace(text, other))
    assert digest_bytes(buffer.getvalue()) != digest_file(pyz)
    pyz.write_bytes(buffer.getvalue())


def test_a_missing_corpus_and_a_path_outside_the_folder(place: MakePlace) -> None:
    gone = place("gone", corpus=Input(path="nowhere.jsonl", digest=OTHER))
    assert gone.run() == 4
    assert "nowhere.jsonl" in gone.result.failure.message
    outside = place("outside", corpus=Input(path="../corpus.jsonl", digest=OTHER))
    assert outside.run() == 4
    assert "outside" in outside.result.failure.message


def test_a_checkpoint_of_another_run_recipe_or_corpus(place: MakePlace) -> None:
    first = place("first", max_steps=2, limits=Limits(stop_at_step=1))
    assert first.run() == 0
    last = first.result.checkpoint
    given = Input(path=last.path, digest=Digest(last.digest))
    for name, change in (("run", {"run": "other"}), ("recipe", {"seed": 8})):
        made = place(name, checkpoint=given, **({"max_steps": 2} | change))
        shutil.copytree(first.out / last.path, made.root / "in" / last.path)
        assert made.run() == 4
        assert f"of another {name}" in made.result.failure.message


def test_a_base_with_another_digest(place: MakePlace) -> None:
    made = place(base=BaseModel(reference="tiny", digest=OTHER))
    assert made.run() == 4
    assert OTHER in made.result.failure.message


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_weights_that_can_run_code(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refusal, match=name):
        locate(BaseModel(reference=str(tmp_path)), tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_that_brings_code_unless_it_is_allowed(tmp_path: Path, name: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / name).write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}))
    with pytest.raises(Refusal, match="auto_map"):
        locate(BaseModel(reference=str(tmp_path)), tmp_path)
    assert locate(BaseModel(reference=str(tmp_path), allow_code=True), tmp_path).path == tmp_path


def test_a_model_in_the_hubs_own_cache_is_found_without_a_network(
    place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    # As the hub's library lays it out: links into a folder of blobs.
    write_tiny(repository / "blobs")
    snapshot.mkdir(parents=True)
    for blob in (repository / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    made = place(max_steps=1, base=BaseModel(reference="owner/name", digest=base_digest(repository / "blobs")))
    assert made.run() == 0
    assert made.result.base_digest == made.job.base.digest
    assert json.loads(made.adapter()["adapter_config.json"])["base_model_name_or_path"] == "owner/name"


@pytest.mark.parametrize("reference", ["nobody/nothing", "/no/such/folder", "./here", "model.gguf", "no-owner"])
def test_a_base_that_is_not_there(place: MakePlace, reference: str) -> None:
    made = place(base=BaseModel(reference=reference))
    assert made.run() == 2
    failure = made.result.failure
    assert failure.kind is FailureKind.USER
    assert repr(reference) in failure.message
    assert "check its name" in failure.fix


def test_a_broken_line_names_file_and_line(place: MakePlace) -> None:
    made = place(lines=b'{"id": "one"\n')
    assert made.run() == 2
    assert "corpus.jsonl:1" in made.result.failure.message


def test_an_empty_corpus(place: MakePlace) -> None:
    made = place(lines=b"\n")
    assert made.run() == 2
    assert made.result.failure.kind is FailureKind.USER


def test_a_job_that_is_not_one(place: MakePlace) -> None:
    made = place()
    made.job_file.write_bytes(made.job_file.read_bytes().replace(b'"seed":7', b'"sed":7'))
    assert made.run() == 2
    assert "sed" in made.result.failure.message
    assert made.result.run == "unknown"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": 0.0}, "epochs"),
        ({"dropout": 1.0}, "dropout"),
        ({"objective": Objective.DPO, "packing": True}, "packing"),
        ({"target_modules": ("no_such_layer",)}, "target_modules"),
    ],
)
def test_a_recipe_that_cannot_be(place: MakePlace, change: dict[str, object], complaint: str) -> None:
    made = place(**change)
    assert made.run() == 2
    assert complaint in made.result.failure.message + made.result.failure.fix


def test_training_that_diverges_says_what_to_lower(place: MakePlace) -> None:
    made = place(max_steps=40, learning_rate=1e38, max_grad_norm=0.0)
    assert made.run() == 2
    assert "learning_rate" in made.result.failure.fix


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (MemoryError(), FailureKind.CAPACITY, "batch_size"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), FailureKind.CAPACITY, "qlora"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), FailureKind.CAPACITY, "batch_size"),
        (OSError(28, "No space left on device"), FailureKind.INFRASTRUCTURE, "free space"),
        (Exception("I/O error: No space left on device (os error 28)"), FailureKind.INFRASTRUCTURE, "free space"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), FailureKind.USER, "pip install"),
        (ConnectionError("gone"), FailureKind.INFRASTRUCTURE, "log"),
    ],
)
def test_each_error_has_its_kind_and_its_fix(error: Exception, kind: FailureKind, hint: str) -> None:
    failure = failure_of(error)
    assert failure.kind is kind
    assert hint in failure.fix


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(place: MakePlace, forge: Forge) -> None:
    whole = place("whole", max_steps=3)
    assert whole.run() == 0
    made = place("full", max_steps=3, limits=Limits(stop_at_step=1))
    assert made.run() == 0
    again = made.rewrite(limits=Limits(stop_at_step=2))
    # Room for events and results, not for weights.
    assert forge.start(again, Told(file_bytes=2**16)).wait() == 5
    assert again.result.checkpoint == made.result.checkpoint
    assert again.result.failure.kind is FailureKind.INFRASTRUCTURE
    after = again.rewrite(limits=Limits())
    assert after.run() == 0
    assert after.adapter() == whole.adapter()


def test_a_missing_package_is_named(place: MakePlace) -> None:
    made = place()
    blocked = made.root / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    environment = os.environ | {"PYTHONPATH": str(blocked)}
    words = [sys.executable, "-m", "elias_trainer", *made.argv]
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 2
    assert "torch" in made.result.failure.message
    assert "pip install" in made.result.failure.fix
