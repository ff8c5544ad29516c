"""The emulator against the unmodified official client: if these fail, the client or the emulator has changed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from elias.testing.kaggle_emulator import Fault, FaultKind, KaggleEmulator
from elias.testing.waiting import wait_until

SCRIPT = """
import pathlib, sys
found = sorted(str(p) for p in pathlib.Path("/kaggle/input").rglob("*") if p.is_file())
print("inputs", found, flush=True)
print("ü on stderr", file=sys.stderr)
pathlib.Path("/kaggle/working/sub").mkdir()
for n in range(25):
    pathlib.Path(f"/kaggle/working/sub/{n:02}.txt").write_text("x" * 1000)
pathlib.Path("/kaggle/working/answer.txt").write_text(pathlib.Path(found[0]).read_text().upper())
"""


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[KaggleEmulator]:
    with KaggleEmulator(tmp_path / "state") as emulator:
        yield emulator


@pytest.fixture
def client(emulated: KaggleEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk.kaggle_client import KaggleClient
    from kagglesdk.kaggle_env import KaggleEnv

    class Api(KaggleApi):  # type: ignore[misc] # the client ships no types
        def build_kaggle_client(self) -> KaggleClient:
            made = KaggleClient(env=KaggleEnv.LOCAL, username="ada", password="secret")
            made._http_client._endpoint = emulated.url
            return made

    api = Api()
    api.authenticate()
    return api


def dataset_folder(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "corpus.txt").write_text(text)
    metadata = {"id": "ada/some-corpus", "title": "some-corpus", "licenses": [{"name": "other"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
    return folder


def kernel_folder(folder: Path, script: str, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(script)
    metadata = {
        "id": "ada/train-one",
        "title": "train-one",
        "code_file": "script.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "dataset_sources": ["ada/some-corpus"],
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(metadata | more))
    return folder


def wait_ready(client: Any) -> None:
    wait_until(lambda: client.dataset_status("ada/some-corpus") == "ready")


def wait_end(client: Any, kernel: str = "ada/train-one") -> Any:
    end = time.monotonic() + 300
    while (status := client.kernels_status(kernel)).status.name in ("QUEUED", "RUNNING"):
        assert time.monotonic() < end, "the session never ended"
        time.sleep(0.03)
    return status


def test_a_dataset_goes_up_a_script_runs_on_it_and_its_paged_output_comes_back(client: Any, tmp_path: Path) -> None:
    made = client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    assert (made.status, made.error) == ("ok", "")
    wait_ready(client)
    pushed = client.kernels_push(str(kernel_folder(tmp_path / "kernel", SCRIPT)), timeout="600")
    assert (pushed.error, pushed.version_number) == ("", 1)
    live = [entry["data"] for entry in client.kernels_logs_stream("ada/train-one")]
    assert any("/kaggle/input/datasets/ada/some-corpus/corpus.txt" in line for line in live)
    assert wait_end(client).status.name == "COMPLETE"
    files, _ = client.kernels_output("ada/train-one", str(tmp_path / "out"), force=True)
    assert len([name for name in files if name.endswith(".txt")]) == 26
    assert (tmp_path / "out" / "answer.txt").read_text() == "HELLO"
    assert "ü on stderr" in json.dumps(json.loads((tmp_path / "out" / "train-one.log").read_text()), ensure_ascii=False)


def test_a_new_version_replaces_what_is_mounted_and_old_ones_can_be_deleted(client: Any, tmp_path: Path) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "one")), quiet=True)
    client.dataset_create_version(
        str(dataset_folder(tmp_path / "data", "two")), "digest", quiet=True, delete_old_versions=True
    )
    wait_ready(client)
    client.kernels_push(str(kernel_folder(tmp_path / "kernel", SCRIPT)))
    wait_end(client)
    client.kernels_output("ada/train-one", str(tmp_path / "out"), force=True)
    assert (tmp_path / "out" / "answer.txt").read_text() == "TWO"


def test_while_a_version_is_processed_the_previous_one_is_mounted_without_a_word(
    client: Any, emulated: KaggleEmulator, tmp_path: Path
) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "old")), quiet=True)
    wait_ready(client)
    emulated.disk.faults.add(Fault(kind=FaultKind.SLOW_PROCESSING, call="CreateDatasetVersion", seconds=3600))
    client.dataset_create_version(str(dataset_folder(tmp_path / "data", "new")), "digest", quiet=True)
    client.kernels_push(str(kernel_folder(tmp_path / "kernel", SCRIPT)))
    wait_end(client)
    client.kernels_output("ada/train-one", str(tmp_path / "out"), force=True)
    assert (tmp_path / "out" / "answer.txt").read_text() == "OLD"


def test_a_notebook_runs_and_its_prints_are_in_the_log(client: Any, tmp_path: Path) -> None:
    import nbformat

    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('from the notebook', 6 * 7)")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder = kernel_folder(tmp_path / "kernel", "", code_file="notebook.ipynb", kernel_type="notebook")
    nbformat.write(notebook, folder / "notebook.ipynb")
    client.kernels_push(str(folder))
    assert wait_end(client).status.name == "COMPLETE"
    assert "from the notebook 42" in client.kernels_logs("ada/train-one")


def test_the_gpu_is_counted_by_week_and_refused_when_the_week_is_spent(
    client: Any, emulated: KaggleEmulator, tmp_path: Path
) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    emulated.disk.advance(
        emulated.disk.next_refresh() - emulated.disk.now() + timedelta(days=3)
    )  # no week ends meanwhile
    emulated.disk.configure(gpu_seconds_a_week=1.0)
    folder = kernel_folder(tmp_path / "kernel", "import time; time.sleep(3600)")
    client.kernels_push(str(folder))
    assert wait_end(client).status.name == "CANCEL_ACKNOWLEDGED"
    client.kernels_delete("ada/train-one", no_confirm=True)
    quota = client.quota_view()
    assert quota.gpu_quota.time_used.total_seconds() >= 1, "a kernel that is deleted gives nothing back"
    assert "quota" in client.kernels_push(str(folder)).error
    emulated.disk.advance(timedelta(weeks=1))
    assert client.quota_view().gpu_quota.time_used.total_seconds() == 0
    assert client.kernels_push(str(folder)).error == ""


def test_a_third_gpu_session_at_once_is_refused_with_status_200(client: Any, tmp_path: Path) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    for name in ("train-one", "train-two", "train-three"):
        folder = kernel_folder(tmp_path / name, "import time; time.sleep(3600)", id=f"ada/{name}", title=name)
        pushed = client.kernels_push(str(folder))
    assert "Maximum batch GPU session count of 2" in pushed.error


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (FaultKind.SESSION_TIMEOUT, "CANCEL_ACKNOWLEDGED"),
        (FaultKind.CANCELLED_FROM_WEB, "CANCEL_ACKNOWLEDGED"),
        (FaultKind.SESSION_ERROR, "ERROR"),
    ],
)
def test_a_session_that_is_ended_keeps_what_it_had_written(
    kind: FaultKind, status: str, client: Any, emulated: KaggleEmulator, tmp_path: Path
) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    emulated.disk.faults.add(Fault(kind=kind, call="SaveKernel", once="kept", seconds=0.2))
    slow = "import pathlib, time; pathlib.Path('kept').write_text('1'); time.sleep(3600)"
    client.kernels_push(str(kernel_folder(tmp_path / "kernel", slow)))
    assert wait_end(client).status.name == status
    client.kernels_output("ada/train-one", str(tmp_path / "out"), force=True)
    assert (tmp_path / "out" / "kept").exists()


def test_a_vanished_kernel_answers_404(client: Any, emulated: KaggleEmulator, tmp_path: Path) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    emulated.disk.faults.add(Fault(kind=FaultKind.VANISHED, call="SaveKernel", seconds=0.1))
    client.kernels_push(str(kernel_folder(tmp_path / "kernel", "import time; time.sleep(3600)")))
    with pytest.raises(requests.HTTPError) as gone:
        wait_end(client)
    assert gone.value.response.status_code == 404


def test_a_push_with_an_unknown_dataset_is_refused_in_the_answer(client: Any, tmp_path: Path) -> None:
    pushed = client.kernels_push(str(kernel_folder(tmp_path / "kernel", "pass")))
    assert pushed.invalid_dataset_sources == ["ada/some-corpus"]


def test_a_lost_answer_leaves_the_kernel_running(client: Any, emulated: KaggleEmulator, tmp_path: Path) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    emulated.disk.faults.add(Fault(kind=FaultKind.LOST_ANSWER, call="SaveKernel"))
    with pytest.raises(requests.RequestException):
        client.kernels_push(str(kernel_folder(tmp_path / "kernel", "print('ran')")))
    assert wait_end(client).status.name == "COMPLETE"


def test_the_accelerator_can_be_another_one_than_asked_for(
    client: Any, emulated: KaggleEmulator, tmp_path: Path
) -> None:
    client.dataset_create_new(str(dataset_folder(tmp_path / "data", "hello")), quiet=True)
    wait_ready(client)
    emulated.disk.faults.add(Fault(kind=FaultKind.WRONG_ACCELERATOR, call="SaveKernel"))
    script = "import subprocess; print(subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True).stdout)"
    client.kernels_push(str(kernel_folder(tmp_path / "kernel", script)))
    wait_end(client)
    assert "P100" in client.kernels_logs("ada/train-one")


def test_an_interrupted_upload_is_resumed_where_it_stopped(
    client: Any, emulated: KaggleEmulator, tmp_path: Path
) -> None:
    folder = dataset_folder(tmp_path / "data", "y" * 300_000)
    emulated.disk.faults.add(Fault(kind=FaultKind.TRUNCATED, call="upload"))
    assert client.dataset_create_new(str(folder), quiet=True).status == "ok"
    stored = emulated.disk.dataset("ada", "some-corpus") / "versions" / "1" / "files" / "corpus.txt"
    assert stored.read_text() == "y" * 300_000


@pytest.mark.parametrize(
    ("kind", "error"),
    [(FaultKind.HTTP_429, requests.HTTPError), (FaultKind.HTTP_500, requests.HTTPError), (FaultKind.HTML, ValueError)],
)
def test_a_broken_answer_reaches_the_client(
    kind: FaultKind, error: type[Exception], client: Any, emulated: KaggleEmulator
) -> None:
    emulated.disk.faults.add(Fault(kind=kind, call="GetAcceleratorQuotaStatistics"))
    with pytest.raises(error):
        client.quota_view()
    assert client.quota_view().gpu_quota.total_time_allowed.total_seconds() == 108_000


def test_the_stock_command_line_reaches_it_through_a_proxy_setting(emulated: KaggleEmulator, tmp_path: Path) -> None:
    environment = os.environ | {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "http_proxy": emulated.url,
        "no_proxy": "",
        "NO_PROXY": "",
        "KAGGLE_USERNAME": "ada",
        "KAGGLE_KEY": "secret",
        "KAGGLE_CONFIG_DIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    words = [sys.executable, "-m", "kaggle", "quota"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "30" in done.stdout
