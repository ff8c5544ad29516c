"""The judge's bounds come from the configuration."""

from __future__ import annotations

from pathlib import Path

from elias.adapters.evaluators.doctests import Doctests
from elias.config.load import load
from elias.ports.evaluator import EvaluatorBounds
from elias.wiring.judge import open_evaluators


def test_what_the_file_says_is_what_the_evaluators_are_given(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "config.toml").write_text("[judge]\nexamples = 50\nfunctions = 3\nanswer_tokens = 64\n")
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path))
    evaluator = open_evaluators(load())["doctests"]
    assert isinstance(evaluator, Doctests)
    assert evaluator.context.bounds == EvaluatorBounds(examples=50, functions=3, answer_tokens=64)
