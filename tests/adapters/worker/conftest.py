"""A place for workers with its door open on loopback, and real workers in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pyrage
import pytest

from elias.adapters.backends.worker import WorkerBackend
from elias.adapters.clock import SystemClock
from elias.domain.run import SegmentState
from elias.ports.backend import BackendContext, Bundle, Status
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.ports import free_port
from elias.testing.waiting import PATIENCE_S, wait_until
from elias_trainer.calls import Node
from elias_trainer.contract import Recipe

NODE_KEY = str(pyrage.x25519.Identity.generate())
LONG = Recipe(max_steps=100_000)
SETTINGS = {"alone": "0s", "report_every": "0.1s", "patience": "1h"}


@dataclass
class Place:
    """The node's side, in this process, and the workers that were started."""

    folder: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, Any] = field(default_factory=dict)
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    made: list[WorkerBackend] = field(default_factory=list)
    lines: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def there(self) -> Path:
        """Where workers keep their segments."""
        return self.folder / "there"

    def backend(self) -> WorkerBackend:
        settings = {**SETTINGS, "port": self.port, **self.settings}
        context = BackendContext(
            name="worker",
            node="test node",
            home=self.folder / "here",
            settings=settings,
            clock=SystemClock(),
            node_key=NODE_KEY,
        )
        self.made.append(WorkerBackend(context))
        return self.made[-1]

    def token(self) -> str:
        token, _ = self.made[-1].register.new_token(self.made[-1].settings.token_valid)
        self.made[-1].listen()
        return token

    def start(self, *words: str, name: str = "there") -> subprocess.Popen[str]:
        """A worker that joins with a new token, or as `words` have it."""
        command = [sys.executable, "-u", "-m", "elias_trainer", "join", *(words or (self.url, self.token()))]
        command += ["--folder", str(self.folder / name)]
        with (self.folder / f"{name}.log").open("ab") as log:
            worker = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
        self.workers.append(worker)
        return worker

    def line(self, url: str | None = None, credential: str | None = None) -> Node:
        """To the node, for a test that speaks as a worker does."""
        self.lines.append(Node(url or self.url, credential=credential))
        return self.lines[-1]

    def said(self, name: str = "there") -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def with_worker(self) -> WorkerBackend:
        backend = self.backend()
        self.start()
        wait_until(lambda: len(backend.register.known()) == 1, self.said)
        return backend

    def close(self) -> None:
        for line in self.lines:
            line.close()
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.folder) in part for part in process.info["cmdline"] or ()) and process.pid != os.getpid():
                with suppress(psutil.NoSuchProcess):  # it has just ended
                    process.kill()
        for backend in self.made:
            backend.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "place")
    made.folder.mkdir()
    yield made
    made.close()


# How the tests speak to a backend


def bundle_of(place: Place, key: str = "run-0001", **wanted: object) -> Bundle:
    return make_bundle(place.folder / "bundles" / key, key, Wanted(**wanted))  # type: ignore[arg-type] # its own fields


def submit(backend: WorkerBackend, bundle: Bundle) -> str:
    return backend.submit(bundle.job.segment, bundle, backend.offers(need_of(bundle))[0])


def until(backend: WorkerBackend, handle: str, is_so: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so(status := backend.poll(handle)):
        assert time.monotonic() < deadline and not status.state.is_final, status
        backend.renew(handle)
        time.sleep(0.03)
    return status


def to_the_end(backend: WorkerBackend, handle: str) -> Status:
    return until(backend, handle, lambda status: status.state.is_final)


def to_the_end_of_patience(backend: WorkerBackend, handle: str) -> Status:
    """Its worker is not heard of any more, and the node is willing to wait for a second only."""
    patient = backend.settings
    backend.settings = replace(patient, patience=timedelta(seconds=1))
    try:
        return to_the_end(backend, handle)
    finally:
        backend.settings = patient


def is_running(status: Status) -> bool:
    return status.state is SegmentState.RUNNING


QUICK_TESTS = (
    "test_a_segment_runs_to_its_end_and_comes_home_whole",
    "test_a_trainer_that_vanishes_is_a_failure_worth_another_try_and_its_checkpoint_comes_home",
    "test_cancelling_keeps_the_checkpoint",
)
"""Those of the shared suite that `make quick` runs; `make test` runs all of it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "adapters/worker/test_worker_suite.py" in item.nodeid and item.name not in QUICK_TESTS:
            item.add_marker(pytest.mark.slow)
