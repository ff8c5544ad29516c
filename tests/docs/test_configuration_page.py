"""docs/configuration.md names every setting there is, with its default."""

import dataclasses
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.launching import LocalSettings
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.adapters.backends.ssh.settings import SshSettings
from elias.adapters.backends.worker.settings import WorkerSettings
from elias.config.load import defaults

ROW = re.compile(r"^\| `([\w.]+)` \| (.*?) \|", flags=re.MULTILINE)
BACKENDS = {
    "local": LocalSettings,
    "kaggle": KaggleSettings,
    "sagemaker": SageMakerSettings,
    "ssh": SshSettings,
    "worker": WorkerSettings,
}


@pytest.fixture
def rows(root: Path) -> dict[str, str]:
    return dict(ROW.findall((root / "docs" / "configuration.md").read_text(encoding="utf-8")))


def test_each_setting_has_its_row_with_its_default(rows: dict[str, str]):
    wrong = {name: written(value) for name, value in defaults() if rows.get(name) != written(value)}
    assert not wrong, f"docs/configuration.md: these rows are missing, or have another default: {wrong}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_setting_of_a_backend_has_its_row(rows: dict[str, str], backend: str):
    names = {f"backends.{backend}.{field.name}": field.default for field in dataclasses.fields(BACKENDS[backend])}
    wrong = {name: written(value) for name, value in names.items() if rows.get(name) != written(value)}
    assert not wrong, f"docs/configuration.md: these rows are missing, or have another default: {wrong}"


def test_no_row_names_a_setting_that_is_gone(rows: dict[str, str]):
    known = {name for name, _ in defaults()}
    known |= {f"backends.{name}.{field.name}" for name, kind in BACKENDS.items() for field in dataclasses.fields(kind)}
    assert sorted(rows.keys() - known) == []


def written(value: Any) -> str:
    """A default as the page writes it, in TOML; what is not set has a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, timedelta):
        return f'`"{_span(value)}"`'
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _span(value: timedelta) -> str:
    seconds = round(value.total_seconds())
    unit, size = next(pair for pair in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % pair[1] == 0)
    return f"{seconds // size}{unit}"
