"""One emulator a module, with an account in it."""

from collections.abc import Iterator

import pytest

from tests.testing.aws_account import Account


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    from elias.testing.sagemaker_emulator import SageMakerEmulator  # with all of moto, for whoever needs it

    with SageMakerEmulator(tmp_path_factory.mktemp("sagemaker") / "state") as emulated:
        emulated.disk.configure(sync_s=0.02)
        # moto starts no log group by itself, and a test may look before the first job has made it
        account = Account(emulated)
        account.logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
        yield account


@pytest.fixture
def account(shared: Account) -> Iterator[Account]:
    yield shared
    shared.disk.faults.clear()
    shared.disk.configure(quotas={}, prices={}, expired_keys=[], grace_s=120.0, isolation="auto")
