"""This machine as a training place: the backend contract, and what is special to processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from elias.adapters.backends.local import LocalBackend
from elias.adapters.clock import SystemClock
from elias.domain.footprint import KNOWN_SHAPES
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.domain.run import SegmentState
from elias.errors import ConfigError, DiskFull
from elias.ports.backend import Backend, BackendContext
from elias.testing.backend_suite import BackendSuite, MakeBundle
from elias.testing.places.world import WorldClock
from elias_trainer.contract import BaseModel, Limits, Recipe


def make_backend(home: Path, **settings: object) -> LocalBackend:
    context = BackendContext(name="local", node="test", home=home, settings=settings, clock=SystemClock())
    return LocalBackend(context)


def trainers(home: Path) -> list[psutil.Process]:
    """Every living process that works under `home`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(str(home) in word for word in words) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


SUBMIT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from elias.adapters.backends.local import LocalBackend
from elias.adapters.clock import SystemClock
from elias.domain.label import Label
from elias.ports.backend import BackendContext, Bundle
from elias.testing.bundles import need_of
from elias_trainer.contract import Job, from_json

home, folder = Path(sys.argv[1]), Path(sys.argv[2])
bundle = Bundle(job=from_json(Job, (folder / "job.json").read_bytes()), folder=folder, label=Label.PUBLIC)
backend = LocalBackend(BackendContext(name="local", node="test", home=home, settings={}, clock=SystemClock()))
backend.submit(bundle.job.segment, bundle, backend.offers(need_of(bundle))[0])
os.kill(os.getpid(), signal.SIGKILL)
"""


class TestLocalBackend(BackendSuite):
    @pytest.fixture
    def home(self, tmp_path: Path) -> Iterator[Path]:
        home = tmp_path / "local"
        yield home
        for process in trainers(tmp_path):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                process.kill()

    @pytest.fixture
    def backend(self, home: Path) -> Backend:
        return make_backend(home)

    def test_it_takes_secret_data_because_nothing_leaves_the_machine(
        self, backend: Backend, bundle: MakeBundle
    ) -> None:
        assert self.wait(backend, self.submit(backend, bundle(label=Label.SECRET))).state is SegmentState.DONE

    def test_another_process_finds_the_segment_of_one_that_was_killed(
        self, backend: Backend, home: Path, bundle: MakeBundle
    ) -> None:
        made = bundle(recipe=self.LONG)
        child = subprocess.run([sys.executable, "-c", SUBMIT_AND_DIE, str(home), str(made.folder)], check=False)
        assert child.returncode == -signal.SIGKILL
        assert self.submit(backend, made) == "suite-0001"
        assert backend.poll("suite-0001").state is SegmentState.RUNNING
        assert len([p for p in trainers(home) if "train" in p.info["cmdline"]]) <= 2  # the trainer and its supervisor
        backend.cancel("suite-0001")

    def test_one_segment_trains_at_a_time_and_the_other_waits_its_turn(
        self, backend: Backend, bundle: MakeBundle
    ) -> None:
        first = self.submit(backend, bundle("first-0001", recipe=self.LONG))
        second = self.submit(backend, bundle("second-0001"))
        waiting = backend.poll(second)
        assert waiting.state is SegmentState.PENDING and "another segment" in (waiting.note or "")
        backend.cancel(first)
        assert self.wait(backend, second).state is SegmentState.DONE

    def test_a_segment_cancelled_in_the_queue_never_runs(
        self, backend: Backend, bundle: MakeBundle, home: Path
    ) -> None:
        first = self.submit(backend, bundle("first-0001", recipe=self.LONG))
        second = self.submit(backend, bundle("second-0001"))
        backend.cancel(second)
        backend.cancel(first)
        assert backend.poll(second).state is SegmentState.CANCELLED
        assert not (home / "segments" / second / "out").exists()

    def test_a_killed_trainer_is_seen_with_its_signal_and_its_children_are_gone(
        self, backend: Backend, bundle: MakeBundle, home: Path
    ) -> None:
        handle = self.submit(backend, bundle(recipe=self.LONG))
        pid = json.loads((home / "segments" / handle / "who.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        status = self.wait(backend, handle)
        assert status.state is SegmentState.FAILED and status.failure is not None
        self.until(backend, handle, lambda: not trainers(home))

    def test_a_recycled_process_id_is_not_taken_for_the_trainer(
        self, backend: Backend, bundle: MakeBundle, home: Path
    ) -> None:
        handle = self.submit(backend, bundle())
        self.until(backend, handle, lambda: not trainers(home))
        who = home / "segments" / handle / "who.json"
        told = json.loads(who.read_text())
        (home / "segments" / handle / "ended.json").unlink(missing_ok=True)
        who.write_text(json.dumps(told | {"pid": os.getpid()}))
        assert backend.poll(handle).state is SegmentState.DONE
        assert psutil.Process(os.getpid()).is_running()

    def test_a_full_disk_is_refused_before_the_start(self, home: Path, bundle: MakeBundle) -> None:
        backend = make_backend(home, min_free_bytes=2**60)
        with pytest.raises(DiskFull, match="GiB free") as refusal:
            self.submit(backend, bundle())
        assert "ELIAS_HOME" in refusal.value.fix

    def test_a_base_that_does_not_fit_is_refused_with_what_would(self, home: Path) -> None:
        huge = Recipe(batch_size=512, sequence_length=65_536)
        need = Need(base=BaseModel(reference=next(iter(KNOWN_SHAPES))), recipe=huge, label=Label.PUBLIC, corpus_bytes=1)
        refused = make_backend(home).offers(need)[0].refused
        assert refused and "qlora" in refused

    def test_a_mistyped_setting_is_refused_by_name(self, home: Path) -> None:
        with pytest.raises(ConfigError, match="thread"):
            make_backend(home, thread=2)
        with pytest.raises(ConfigError, match="not a whole number"):
            make_backend(home, threads="two")

    def test_within_its_hours_alone_anything_begins_here(self, home: Path, bundle: MakeBundle) -> None:
        clock = WorldClock()
        hours = "-".join(f"{(clock.now() + timedelta(hours=h)).astimezone():%H:%M}" for h in (1, 3))
        context = BackendContext(name="local", node="test", home=home, settings={"hours": hours}, clock=clock)
        backend = LocalBackend(context)
        need = Need(base=BaseModel(reference="tiny"), recipe=Recipe(), label=Label.PUBLIC, corpus_bytes=1)
        [closed] = backend.offers(need)
        assert closed.refused and "only" in closed.refused and closed.refused_until == clock.now() + timedelta(hours=1)
        sent = bundle()
        handle = backend.submit(sent.job.segment, sent, closed)
        waits = backend.poll(handle)
        assert waits.state is SegmentState.PENDING and waits.note == f"waits: {closed.refused}"
        clock.sleep(timedelta(hours=1))
        [opened] = backend.offers(need)
        assert opened.refused is None and opened.open_for(clock.now()) == timedelta(hours=2)
        assert self.wait(backend, handle).state is SegmentState.DONE

    def test_hours_that_are_none_are_refused_with_an_example(self, home: Path) -> None:
        with pytest.raises(ConfigError, match="not from when to when"):
            make_backend(home, hours="at night")

    def test_the_trainer_gets_its_threads_and_lets_the_others_work(self, home: Path, bundle: MakeBundle) -> None:
        backend = make_backend(home, threads=1)
        self.wait(backend, self.submit(backend, bundle(limits=Limits())))
        environment = json.loads((home / "segments" / "suite-0001" / "launch.json").read_text())["environment"]
        assert environment["OMP_NUM_THREADS"] == "1" and environment["OMP_WAIT_POLICY"] == "PASSIVE"
