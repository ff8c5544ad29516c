"""What leaves this machine, readable for whom; what is left of it there; and what no log may show."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import ConfigError, LabelForbids
from elias.testing.bundles import CORPUS
from elias.testing.fake_trainer import fake_base
from elias.testing.kaggle_emulator import FaultKind
from elias_trainer.contract import FailureKind, Limits, Recipe

READABLE = CORPUS[2:40]
KEY = "a-key-that-nobody-may-log"
PRIVATE = {"label": Label.PRIVATE}


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def showing(root: Path, secret: bytes) -> list[str]:
    return [str(path.relative_to(root)) for path in files(root) if secret in path.read_bytes()]


def keys_there(place: Any) -> list[str]:
    return [path.name for path in place.emulated.disk.root.glob("datasets/ada/*") if "key" in path.name]


def test_private_data_is_trained_on_and_nothing_of_it_is_readable_there(place: Any) -> None:
    place.submit(**PRIVATE, limits=Limits(checkpoint_every_s=0))
    assert place.ended().state is SegmentState.DONE
    assert place.checkpoint() == 12 and (place.home / "home" / "adapter" / "adapter_model.safetensors").exists()
    root = place.emulated.disk.root
    assert showing(root, READABLE) == []
    [working] = root.glob("kernels/ada/*/versions/1/kaggle/working")
    left = {path.name for path in files(working)} - {"events.jsonl", "result.json", "outbox.json"}
    assert left and all(name.endswith(".age") for name in left)
    for adapter in (place.home / "home" / "adapter").iterdir():
        assert showing(root, adapter.read_bytes()[-64:]) == []
    assert all(json.loads(p.read_bytes())["private"] for p in root.glob("datasets/ada/*/dataset.json"))
    assert all(push["body"]["isPrivate"] for push in place.emulated.disk.requests("SaveKernel"))


@pytest.mark.slow
def test_public_data_travels_readable(place: Any) -> None:
    place.submit(label=Label.PUBLIC)
    place.ended()
    assert showing(place.emulated.disk.root, READABLE)


def test_the_keys_dataset_is_deleted_while_the_job_still_runs(place: Any) -> None:
    place.submit(**PRIVATE, recipe=Recipe(max_steps=100_000), base=fake_base(step_s=0.02))
    place.running()
    place.until(lambda status: not keys_there(place))
    known = len(list(place.backend.events(place.key, -1)))
    place.until(lambda status: len(list(place.backend.events(place.key, -1))) > known + 2)
    assert place.backend.poll(place.key).state is SegmentState.RUNNING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seconds"), [(FaultKind.SESSION_ERROR, 0.1), (FaultKind.VANISHED, 0.1), (FaultKind.STALE_DATASET, 0.0)]
)
def test_the_keys_dataset_is_deleted_however_the_session_ends(
    make_backend: Callable[..., KaggleBackend], kind: FaultKind, seconds: float, place: Any
) -> None:
    place.backend = make_backend(keep_versions=2)
    place.submit(label=Label.PUBLIC)
    place.ended()
    place.key = "faults-0002"
    place.fault(kind, "SaveKernel", seconds=seconds)
    place.submit(**PRIVATE)
    place.ended()
    assert keys_there(place) == []
    assert showing(place.backend._context.home, b"AGE-SECRET-KEY") == []


def test_a_cancelled_segment_leaves_no_key_behind(place: Any) -> None:
    place.emulated.disk.configure(gpu_seconds_a_week=1.0)
    place.submit(**PRIVATE)
    place.until(lambda status: "waits until" in (status.note or ""))
    assert keys_there(place) == [], "a segment that waits for quota needs no key there"
    place.emulated.disk.configure(gpu_seconds_a_week=3600.0)
    place.fault(FaultKind.SLOW_PROCESSING, "CreateDataset", seconds=3600.0)
    place.until(lambda status: "processing the uploaded files" in (status.note or ""))
    assert keys_there(place)
    place.backend.cancel(place.key)
    assert place.ended().state is SegmentState.CANCELLED
    assert keys_there(place) == []


@pytest.mark.slow
def test_a_key_that_could_not_be_deleted_is_deleted_later(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    place.backend = make_backend(http_tries=1, patience="0.2s")
    place.fault(FaultKind.HTTP_500, "DeleteDataset", times=100_000)
    place.submit(**PRIVATE)
    place.ended()
    assert keys_there(place)
    place.emulated.disk.faults.clear()
    place.key = "another-0001"
    place.submit(label=Label.PUBLIC)
    assert keys_there(place) == []


def test_secret_data_is_refused_before_anything_is_written_or_sent(place: Any) -> None:
    with pytest.raises(LabelForbids) as refused:
        place.submit(label=Label.SECRET)
    assert "--strategy local" in refused.value.fix
    assert place.pushes() == 0 and not place.emulated.disk.requests("CreateDataset")
    assert showing(place.home / "node", READABLE) == []


def test_private_data_stays_while_the_node_has_no_key_to_have_the_outputs_sealed_for(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    import dataclasses

    without = dataclasses.replace(make_backend()._context, node_key=None)
    place.backend = KaggleBackend(without)
    with pytest.raises(ConfigError) as refused:
        place.submit(**PRIVATE)
    assert refused.value.fix == "elias init" and not place.emulated.disk.requests("CreateDataset")


def test_the_key_may_come_from_a_kaggle_secret_and_then_no_dataset_ever_holds_it(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    secret = pyrage.x25519.Identity.generate()
    place.emulated.disk.set_secrets({"ELIAS_KEY": str(secret)})
    place.backend = make_backend(key_by="secret", secret_recipient=str(secret.to_public()))
    place.submit(**PRIVATE)
    assert place.ended().state is SegmentState.DONE
    assert keys_there(place) == []
    assert showing(place.emulated.disk.root / "datasets", b"AGE-SECRET-KEY") == []
    assert showing(place.emulated.disk.root, READABLE) == []


@pytest.mark.slow
def test_the_wrong_kaggle_secret_opens_nothing(make_backend: Callable[..., KaggleBackend], place: Any) -> None:
    mine, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    place.emulated.disk.set_secrets({"ELIAS_KEY": str(other)})
    place.backend = make_backend(key_by="secret", secret_recipient=str(mine.to_public()))
    place.submit(**PRIVATE)
    ended = place.ended()
    assert ended.failure is not None and ended.failure.kind is FailureKind.INFRASTRUCTURE
    assert "ended ERROR" in ended.failure.message


@pytest.mark.parametrize("name", ["kaggle.json", "access_token", "credentials.json"])
def test_credentials_that_others_can_read_are_refused_with_the_fix(
    name: str, make_backend: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "config" / name
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o644)
    with pytest.raises(ConfigError) as refused:
        make_backend()
    assert refused.value.fix == f"chmod 600 {path}"


def test_the_account_key_is_in_no_log_and_no_file(
    place: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for call in ("GetDatasetStatus", "SaveKernel", "ListKernelSessionOutput"):
        place.fault(FaultKind.HTTP_500, call)
    place.submit()
    seen = place.until(lambda status: status.state.is_final)
    place.emulated.disk.configure(accepts_keys=False)
    with pytest.raises(ConfigError) as refused:
        place.backend.quota()
    said = [
        refused.value.what,
        refused.value.fix,
        *[status.note or "" for status in seen],
        caplog.text,
        *capfd.readouterr(),
    ]
    assert not any(KEY in text for text in said)
    assert showing(tmp_path, KEY.encode()) == []
    assert showing(tmp_path, b"YWRhOmEta2V5") == [], "not as it travels either"
