"""The shipped contract suite, against the emulated SageMaker."""

import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.ports.backend import Backend
from elias.testing.backend_suite import BackendSuite
from elias.testing.sagemaker_emulator import SageMakerEmulator


class TestSageMaker(BackendSuite):
    patience_s = 60.0
    poll_s = 0.05

    @pytest.fixture
    def backend(self, backend: SageMakerBackend, emulated: SageMakerEmulator) -> Backend:
        # a limit is whole seconds, of which the start of two interpreters takes one here
        emulated.disk.configure(starting_s=0.0)
        emulated.disk.set_pace(0.05)
        return backend
