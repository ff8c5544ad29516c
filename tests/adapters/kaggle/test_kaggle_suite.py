"""The shipped contract suite, against the emulated Kaggle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.ports.backend import Backend
from elias.testing.backend_suite import BackendSuite, MakeBundle
from elias.testing.waiting import wait_until


class TestKaggle(BackendSuite):
    poll_s = 0.1

    @pytest.fixture
    def backend(self, backend: KaggleBackend) -> Backend:  # the emulated one of conftest.py
        return backend

    def test_fetching_a_running_segment_brings_its_checkpoint(
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path
    ) -> None:
        """Kaggle shows no output before a session's end: fetching is allowed meanwhile, and brings nothing."""
        handle = self.submit(backend, bundle(recipe=self.LONG))
        self.until(backend, handle, lambda: backend.poll(handle).state is SegmentState.RUNNING)
        backend.fetch(handle, tmp_path / "home")
        assert not list((tmp_path / "home").iterdir())

    def test_cancelling_keeps_the_checkpoint(  # type: ignore[override] # with a session of half a minute
        self, make_backend: Callable[..., Backend], bundle: MakeBundle, tmp_path: Path
    ) -> None:
        """A cancelled session runs to its deadline, since nothing else would keep its output."""
        backend = make_backend(session_limit="63s")
        handle = self.submit(backend, bundle(recipe=self.LONG))
        self.until(backend, handle, lambda: backend.poll(handle).state is SegmentState.RUNNING)
        backend.cancel(handle)
        backend.cancel(handle)
        assert "cancelled" in (backend.poll(handle).note or "")
        assert self.wait(backend, handle).state is SegmentState.CANCELLED
        backend.fetch(handle, tmp_path / "home")
        assert self.checkpoint(tmp_path / "home").exists()


def test_the_shipped_notebook_runs_as_it_is_and_shows_its_cells(
    make_backend: Callable[..., KaggleBackend], place: Any
) -> None:
    """Everywhere else the template's cells run as a script."""
    place.backend = make_backend(template=None)
    place.submit(label=Label.PRIVATE)
    assert place.ended().state is SegmentState.DONE
    [page] = place.emulated.disk.root.glob("kernels/ada/*/versions/*/kaggle/working/__notebook__.ipynb")
    assert "the trainer left with exit code 0" in page.read_text()
    [session] = place.emulated.disk.root.glob("kernels/ada/*/versions/*/session.json")
    wait_until(lambda: json.loads(session.read_bytes())["status"] == "COMPLETE")  # every cell, the last one too
