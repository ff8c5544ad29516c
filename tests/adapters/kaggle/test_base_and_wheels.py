"""What a notebook takes from elsewhere than the parcel's data: a base in a dataset of its own, and wheels."""

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.domain.run import SegmentState
from elias.ports.backend import Bundle
from elias.testing.bundles import Wanted, make_bundle, need_of, questions
from elias.testing.kaggle_emulator import KaggleEmulator
from elias_trainer.contract import (
    BaseModel,
    FailureKind,
    Input,
    Recipe,
    base_digest,
    digest_file,
    to_json,
)
from tests.adapters.kaggle.official_cli import type_kaggle

REFERENCE = "some-lab/small-llama"


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[KaggleEmulator]:
    """With a server of its own: Kaggle's command line reaches no other."""
    with KaggleEmulator(tmp_path / "emulated") as emulator:
        yield emulator


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Llama of 1.3 M parameters, as safetensors, as a hub would give it."""
    from elias_trainer.tiny import write_tiny

    folder = tmp_path_factory.mktemp("base") / "small-llama"
    write_tiny(folder)
    return folder


def real_bundle(folder: Path, key: str) -> Bundle:
    """As `make_bundle`, with the real trainer and something to learn."""
    bundle = make_bundle(folder, key, Wanted(base=BaseModel(reference=REFERENCE)))
    (folder / "corpus.jsonl").write_bytes(questions(4))
    write_trainer_archive(folder / "trainer.pyz")
    job = replace(
        bundle.job,
        corpus=Input(path="corpus.jsonl", digest=digest_file(folder / "corpus.jsonl")),
        trainer=digest_file(folder / "trainer.pyz"),
        recipe=Recipe(max_steps=2, batch_size=2, sequence_length=256, rank=4),
    )
    (folder / "job.json").write_bytes(to_json(job))
    return replace(bundle, job=job)


@pytest.mark.slow
@pytest.mark.parametrize("newer_mounts", [True, False])
def test_a_base_is_trained_on_out_of_a_dataset_of_its_own(
    newer_mounts: bool, make_backend: Callable[..., KaggleBackend], place: Any, small_model: Path
) -> None:
    place.emulated.disk.configure(newer_mounts=newer_mounts)
    metadata = {"id": "ada/small-llama", "title": "small-llama", "licenses": [{"name": "other"}]}
    (small_model / "dataset-metadata.json").write_text(json.dumps(metadata))
    type_kaggle(f"kaggle datasets create -p {small_model}", place.emulated.url, place.home)
    (small_model / "dataset-metadata.json").unlink()

    place.backend = make_backend(base_source="ada/small-llama")
    bundle = real_bundle(place.home / "bundle", place.key)
    [offer] = place.backend.offers(need_of(bundle))
    assert offer.refused is None
    place.backend.submit(place.key, bundle, offer)
    ended = place.until(lambda status: status.state.is_final, within_s=900)[-1]
    assert ended.state is SegmentState.DONE, ended
    place.backend.fetch(place.key, place.home / "home")
    result = json.loads((place.home / "home" / "result.json").read_bytes())
    assert result["base_digest"] == base_digest(small_model)
    assert (result["step"], result["outcome"]) == (2, "done")


def test_a_base_that_nothing_brings_is_refused_with_both_ways_out(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    need = need_of(make_bundle(place.home / "bundle", place.key, Wanted(base=BaseModel(reference=REFERENCE))))
    [offer] = make_backend().offers(need)
    assert offer.refused and REFERENCE in offer.refused
    assert "internet = true" in offer.refused and "base_source" in offer.refused


def wheel(folder: Path, tag: str = "py3-none-any") -> Path:
    """A real wheel with one module (PyPA's binary distribution format)."""
    info = "elias_greeting-1.0.dist-info"
    files = {
        "elias_greeting.py": b"HELLO = 'hello from a wheel'\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: elias-greeting\nVersion: 1.0\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for name, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(exist_ok=True)
    path = folder / f"elias_greeting-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def printed(place: Any) -> str:
    return "\n".join(place.backend.log(place.key))


def test_wheels_are_installed_offline_from_the_dataset(
    make_backend: Callable[..., KaggleBackend], place: Any, tmp_path: Path
) -> None:
    wheel(tmp_path / "wheels")
    mine = tmp_path / "mine.py"
    mine.write_text(f"{as_script(template_text())}\nimport elias_greeting\nprint(elias_greeting.HELLO)\n")
    place.backend = make_backend(wheels=str(tmp_path / "wheels"), template=str(mine))
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert "installed 1 wheels" in printed(place) and "hello from a wheel" in printed(place)
    [pushed] = place.emulated.disk.requests("SaveKernel")
    assert not pushed["body"].get("enableInternet", False)
    assert place.emulated.disk.requests("CreateDataset"), "they travel in the dataset"
    with pytest.raises(ModuleNotFoundError):
        __import__("elias_greeting")  # nothing is installed in the environment that the emulated kernel runs in


def test_without_wheels_the_image_is_used_as_it_is(place: Any) -> None:
    place.submit()
    assert place.ended().state is SegmentState.DONE
    assert "installed 0 wheels" in printed(place)


def test_a_wheel_for_another_python_is_named_with_what_to_fetch_instead(
    make_backend: Callable[..., KaggleBackend], place: Any, tmp_path: Path
) -> None:
    wheel(tmp_path / "wheels", "cp27-cp27m-manylinux1_x86_64")
    place.backend = make_backend(wheels=str(tmp_path / "wheels"))
    place.submit()
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.USER
    assert "elias_greeting-1.0-cp27" in ended.failure.message and "not a supported wheel" in ended.failure.message
    assert "--python-version" in ended.failure.fix
