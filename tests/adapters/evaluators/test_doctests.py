"""The doctests evaluator against an engine on loopback and the real sandbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elias.adapters.evaluators.doctests import Doctests
from elias.adapters.sandbox import why_not
from elias.errors import EngineError, MissingPackage
from elias.ports.evaluator import Contender, EvaluatorBounds, EvaluatorContext, HasNotes
from elias.testing.evaluator_suite import EvaluatorSuite, Trial, function_example, write_heldout
from elias.testing.table_engine import TableEngine
from elias_trainer.contract import BaseModel

needs_sandbox = pytest.mark.skipif(why_not() is not None, reason=f"no sandbox on this machine: {why_not()}")

BASE = BaseModel(reference="starter")
FIELD = (Contender(name="candidate", adapter=Path("/adapter")), Contender(name="base", adapter=None))
INC = function_example(
    "a1", 'def inc(x):\n    """\n    >>> inc(1)\n    2\n    >>> inc(0)\n    1\n    """\n', "    return x + 1\n"
)
NEG = function_example("b2", 'def neg(x):\n    """\n    >>> neg(1)\n    -1\n    """\n', "    return -x\n", stage=2)
NEEDS_A_PACKAGE = function_example(
    "a0", 'def far(x):\n    """\n    >>> far(1)\n    1\n    """\n', "    return numpy.abs(x)\n", before="import numpy\n"
)
Context = Callable[..., EvaluatorContext]


def answers(name: str, prompt: str) -> str:
    if name == "base":
        return "I would write:\n```python\nreturn x\n```"
    return "```python\n    return x + 1\n```" if "def inc" in prompt else "```python\n    return -x\n```"


@needs_sandbox
def test_each_contender_is_measured_on_each_function(context: Context, tmp_path: Path) -> None:
    engine = TableEngine(answers)
    evaluator = Doctests(context(table=engine))
    found = evaluator.measure(BASE, FIELD, write_heldout(tmp_path / "heldout", [NEG, INC]))
    assert [(m.contender, m.example, m.value, m.weight, dict(m.group)) for m in found] == [
        ("candidate", "a1", 2, 2, {"source": "code"}),
        ("candidate", "b2", 1, 1, {"source": "code", "stage": "2"}),
        ("base", "a1", 0, 2, {"source": "code"}),
        ("base", "b2", 0, 1, {"source": "code", "stage": "2"}),
    ]
    assert engine.served == ["candidate", "base"] and engine.running == 0


@needs_sandbox
def test_a_function_whose_own_body_fails_in_the_sandbox_judges_nobody(context: Context, tmp_path: Path) -> None:
    bounds = EvaluatorBounds(functions=1, answer_tokens=40)
    evaluator = Doctests(replace(context(table=TableEngine(answers)), bounds=bounds))
    found = evaluator.measure(BASE, FIELD, write_heldout(tmp_path / "heldout", [NEEDS_A_PACKAGE, INC, NEG]))
    assert {m.example for m in found} == {"a1"}
    assert isinstance(evaluator, HasNotes)
    assert "1 of 2 tried left out" in evaluator.notes()["doctests"] and "at most 1" in evaluator.notes()["doctests"]
    assert "at most 40 tokens" in evaluator.notes()["doctests"]


@needs_sandbox
def test_an_engine_that_cannot_serve_or_is_not_installed_is_passed_over(context: Context, tmp_path: Path) -> None:
    def missing() -> object:
        raise MissingPackage("no xllamacpp", fix="pip install it")

    made = context(first=TableEngine(answers, cannot="no GGUF"), second=TableEngine(answers))
    made = EvaluatorContext(home=made.home, threads=1, sequence_length=512, engines={"absent": missing, **made.engines})
    assert Doctests(made).measure(BASE, FIELD, write_heldout(tmp_path / "heldout", [INC]))


@needs_sandbox
def test_with_no_engine_nothing_is_measured_and_the_reason_is_told(context: Context, tmp_path: Path) -> None:
    evaluator = Doctests(context(only=TableEngine(answers, cannot="no GGUF")))
    assert evaluator.measure(BASE, FIELD, write_heldout(tmp_path / "heldout", [INC])) == ()
    assert "only: no GGUF" in evaluator.notes()["doctests"]


def test_without_doctests_in_the_corpus_no_engine_is_started(context: Context, tmp_path: Path) -> None:
    engine = TableEngine(answers)
    evaluator = Doctests(context(table=engine))
    (tmp_path / "empty").touch()
    assert evaluator.measure(BASE, FIELD, tmp_path / "empty") == ()
    assert engine.served == [] and "no held-out function" in evaluator.notes()["doctests"]


@needs_sandbox
def test_an_engine_that_fails_is_an_error_and_is_stopped(context: Context, tmp_path: Path) -> None:
    engine = TableEngine(lambda name, prompt: "ERROR")
    with pytest.raises(EngineError, match="HTTP 500"):
        Doctests(context(table=engine)).measure(BASE, FIELD, write_heldout(tmp_path / "heldout", [INC]))
    assert engine.running == 0


@needs_sandbox
class TestContract(EvaluatorSuite):
    @pytest.fixture
    def trial(self, context: Context, tmp_path: Path) -> Trial:
        heldout = write_heldout(tmp_path / "heldout", [INC, NEG])
        evaluator = Doctests(context(table=TableEngine(answers)))
        return Trial(evaluator=evaluator, base=BASE, contenders=FIELD, heldout=heldout)
