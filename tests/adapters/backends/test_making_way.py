"""This machine's trainer makes way: paused where it listens, stopped where it does not, never begun where it waits."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from elias.adapters.backends import making_way
from elias.adapters.backends.local import LocalBackend
from elias.adapters.backends.process import ProcessIdentity
from elias.adapters.clock import SystemClock
from elias.domain.run import SegmentState
from elias.ports.backend import BackendContext, RunsHere
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.waiting import wait_until
from elias_trainer.contract import FailureKind

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); sys.stdin.read()"
"""It ends with whoever started it."""
A_LONG_TIME_S = 3600.0


@pytest.fixture
def deaf():
    """A process of its own group that does not listen to SIGTERM."""
    command, pipe = [sys.executable, "-c", DEAF], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True) as process:
        assert process.stdout and process.stdout.readline()
        yield process
        process.kill()


def test_a_trainer_that_does_not_listen_is_stopped_and_goes_on_when_the_machine_is_free(
    deaf: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making_way, "FREEZE_AFTER_S", 0.0)
    process = psutil.Process(deaf.pid)
    identity = ProcessIdentity(pid=deaf.pid, born=process.create_time())
    making_way.ask(tmp_path, identity, "inference needs this machine")
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    making_way.thaw(tmp_path, identity)
    wait_until(lambda: process.status() != psutil.STATUS_STOPPED)
    assert deaf.poll() is None


def test_one_that_is_given_time_to_pause_is_not_stopped(
    deaf: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making_way, "FREEZE_AFTER_S", A_LONG_TIME_S)
    process = psutil.Process(deaf.pid)
    for _ in range(3):
        making_way.ask(tmp_path, ProcessIdentity(pid=deaf.pid, born=process.create_time()), "why")
    assert process.status() != psutil.STATUS_STOPPED


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    home = tmp_path / "local"
    return LocalBackend(BackendContext(name="local", node="n", home=home, settings={}, clock=SystemClock()))


def submit(backend: LocalBackend, folder: Path, key: str) -> None:
    bundle = make_bundle(folder / key, key, Wanted())
    backend.submit(key, bundle, backend.offers(need_of(bundle))[0])


def test_a_segment_that_waits_for_its_turn_ends_paused_without_being_begun(backend: LocalBackend, tmp_path: Path):
    assert isinstance(backend, RunsHere)
    with backend.launching._slot():  # somebody else trains on this machine
        submit(backend, tmp_path, "run-0001")
        assert backend.poll("run-0001").state is SegmentState.PENDING
        backend.make_way("run-0001", "inference needs this machine")
    status = backend.poll("run-0001")
    assert status.state is SegmentState.PAUSED
    assert status.failure and status.failure.kind is FailureKind.PREEMPTED
    assert "inference needs this machine" in status.failure.message
    assert not (tmp_path / "local" / "segments" / "run-0001" / "who.json").exists()


def test_one_that_is_told_before_it_can_listen_has_made_way_and_has_not_failed(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(making_way, "FREEZE_AFTER_S", A_LONG_TIME_S)
    submit(backend, tmp_path, "run-0001")
    backend.make_way("run-0001", "inference needs this machine")
    deadline = time.monotonic() + 300
    while not (status := backend.poll("run-0001")).state.is_final and time.monotonic() < deadline:
        backend.make_way("run-0001", "inference needs this machine")
        time.sleep(0.05)
    assert status.state in (SegmentState.PAUSED, SegmentState.DONE)
    backend.make_way("run-0001", "again")
    assert backend.poll("run-0001") == status, "of no effect on one that has ended"


def test_one_that_nobody_asked_did_not_make_way(tmp_path: Path):
    assert making_way.why_it_made_way(tmp_path) is None
