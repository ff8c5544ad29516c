"""The shipped contract suite, against the emulated SageMaker."""

from pathlib import Path

import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.domain.run import SegmentState
from elias.ports.backend import Backend
from elias.testing.backend_suite import BackendSuite, MakeBundle
from elias.testing.sagemaker_emulator import SageMakerEmulator
from elias_trainer.contract import Limits, tree_digest


class TestSageMaker(BackendSuite):
    poll_s = 0.05

    @pytest.fixture
    def backend(self, backend: SageMakerBackend) -> Backend:  # the emulated one of conftest.py
        return backend

    def test_a_segment_pauses_at_its_deadline(  # type: ignore[override] # in a place whose time passes slowly
        self, backend: Backend, bundle: MakeBundle, tmp_path: Path, emulated: SageMakerEmulator
    ) -> None:
        """SageMaker's limit is in whole seconds, and the trainer's, in real time, lies before it."""
        emulated.disk.set_pace(0.02)
        emulated.disk.configure(starting_s=0.0, sync_s=0.002)
        handle = self.submit(backend, bundle(recipe=self.LONG, limits=Limits(seconds=8)))
        assert self.wait(backend, handle).state is SegmentState.PAUSED
        backend.fetch(handle, tmp_path / "home")
        result = self.result(tmp_path / "home")
        assert result.reason == "deadline" and result.checkpoint is not None
        assert tree_digest(tmp_path / "home" / result.checkpoint.path) == result.checkpoint.digest
        assert not (tmp_path / "home" / "adapter").exists()

    def has_checkpoint(self, backend: Backend, handle: str, home: Path) -> bool:
        """A segment is sent by `poll`; to fetch alone gets nothing going."""
        backend.poll(handle)
        return super().has_checkpoint(backend, handle, home)

    def has_begun(self, backend: Backend, handle: str, home: Path) -> bool:
        backend.poll(handle)
        return super().has_begun(backend, handle, home)
