"""The generated notebook's one cell, executed for real in a Jupyter kernel, against a live door."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.adapters.backends.worker.notebook import notebook
from elias.domain.run import SegmentState
from elias.testing.waiting import wait_until
from elias_trainer.contract import Digest, digest_bytes, digest_file
from tests.adapters.worker.conftest import Place, bundle_of, submit, to_the_end

EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
patience = {"timeout": 900, "startup_timeout": 300, "iopub_timeout": 300}
resources = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, kernel_name="python3", resources=resources, **patience).execute()
print("".join(output.get("text", "") for output in notebook.cells[0].outputs))
"""


def execute(place: Place, made: object) -> "subprocess.Popen[str]":
    path = place.folder / "worker.ipynb"
    path.write_text(json.dumps(made))
    place.there.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", EXECUTE, str(path), str(place.there)]
    with (place.folder / "there.log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
    place.workers.append(running)
    return running


def test_the_cell_fetches_the_worker_joins_trains_and_ends_when_the_node_says_so(place: Place, tmp_path: Path) -> None:
    backend = place.backend()
    write_trainer_archive(tmp_path / "worker.pyz")
    program = Digest(digest_file(tmp_path / "worker.pyz"))
    running = execute(place, notebook(place.url, place.token(), program, "test node"))
    wait_until(lambda: len(backend.register.known()) == 1, place.said)
    handle = submit(backend, bundle_of(place))
    assert to_the_end(backend, handle).state is SegmentState.DONE
    backend.fetch(handle, place.folder / "home")
    assert (place.folder / "home/adapter/adapter_model.safetensors").exists()
    backend.register.dismiss(backend.register.known()[0].id)
    wait_until(lambda: running.poll() is not None, place.said)
    assert running.returncode == 0, place.said()
    assert "run-0001: over, and home" in place.said() and "wants this worker no more" in place.said()


@pytest.mark.slow
def test_the_cell_runs_no_program_but_the_one_it_was_made_for(place: Place) -> None:
    backend = place.backend()
    running = execute(place, notebook(place.url, place.token(), digest_bytes(b"another"), "test node"))
    wait_until(lambda: running.poll() is not None, place.said)
    assert running.returncode != 0 and "another program" in place.said()
    assert backend.register.known() == []
