from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.testing.sagemaker_emulator import SageMakerEmulator

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class Watch:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def sleep(self, span: timedelta) -> None:
        self.at += span


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SageMakerEmulator]:
    with (
        SageMakerEmulator(tmp_path_factory.mktemp("sagemaker") / "state") as emulator,
        pytest.MonkeyPatch.context() as set,
    ):
        for name, value in CREDENTIALS.items():
            set.setenv(name, value)
        set.delenv("AWS_PROFILE", raising=False)
        set.delenv("AWS_SESSION_TOKEN", raising=False)
        yield emulator


@pytest.fixture
def account(emulated: SageMakerEmulator) -> Iterator[SageMakerEmulator]:
    """The emulator, put back to how it was afterwards."""
    yield emulated
    emulated.disk.faults.clear()
    emulated.disk.configure(quotas={}, prices={}, default_quota=8, expired_keys=[])


@pytest.fixture
def settings(emulated: SageMakerEmulator) -> SageMakerSettings:
    return SageMakerSettings(region=REGION, endpoint_url=emulated.url, http_tries=1)


@pytest.fixture
def clients(settings: SageMakerSettings) -> Iterator[Clients]:
    made = Clients(settings)
    yield made
    made.close()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "backend"
