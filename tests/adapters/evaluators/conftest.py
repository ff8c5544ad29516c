"""A context for evaluators whose engines are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elias.ports.evaluator import EvaluatorContext


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., EvaluatorContext]:
    def make(**engines: object) -> EvaluatorContext:
        factories = {name: (lambda engine=engine: engine) for name, engine in engines.items()}
        return EvaluatorContext(home=tmp_path / "home", threads=1, sequence_length=512, engines=factories)

    return make
