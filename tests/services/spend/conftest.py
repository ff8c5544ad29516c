from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from elias.config import Config
from elias.wiring.stores import open_stores

PROGRAM = Path(__file__).with_name("paying.py")


def _paying() -> Any:
    if "elias_tests_paying" not in sys.modules:
        spec = importlib.util.spec_from_file_location("elias_tests_paying", PROGRAM)
        assert spec and spec.loader
        sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[spec.name])
    return sys.modules["elias_tests_paying"]


@pytest.fixture
def paying() -> Any:
    """The module with the world, which is also the program that is killed."""
    return _paying()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("elias.services.sending.ASK_AGAIN", _paying().timedelta(milliseconds=50))
    monkeypatch.setattr("elias.services.next_move.FIRST_WAIT", _paying().timedelta(milliseconds=10))
    with open_stores(Config(home=tmp_path)) as stores:
        yield _paying().World(tmp_path, stores)
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):
                process.kill()
