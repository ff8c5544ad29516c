"""A function's doctests: what they expect, read here; what a body does, found out in the sandbox."""

from __future__ import annotations

import ast
import doctest
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from elias.adapters.sandbox import SandboxLimits, packages, run_confined
from elias.domain.corpus import DocTest

_PROGRAM = Path(__file__).with_name("doctest_program.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A doctest's examples that expect something: output, or an exception. The others only prepare."""

    passed: int
    total: int


def module_with(test: DocTest, body: str) -> str:
    """The function as it would stand in its module, with all that it needs before it."""
    return test.before + test.signature + body


def check_body(test: DocTest, body: str, limits: SandboxLimits | None = None) -> Checked:
    """Raises Refused where there is no sandbox. A body that does not parse, hangs or ends the process passes nothing
    from there on."""
    examples = examples_of(test)
    total = sum(_expects(example) for example in examples)
    request = {"module": module_with(test, body), "sources": [example.source for example in examples]}
    # ASCII JSON is a Python literal of a string in any source encoding.
    given = f"import json, sys\nREQUEST = json.loads({json.dumps(request)!r})\nsys.path += {packages()!r}\n"
    answer = run_confined(given + _program(), limits)
    answers = _answers(answer.output)
    passed = sum(_expects(wanted) and _meets(wanted, found) for wanted, found in zip(examples, answers, strict=False))
    return Checked(passed=passed, total=total)


def examples_of(test: DocTest) -> Sequence[doctest.Example]:
    """In order, skipped ones left out; empty where the signature's docstring cannot be read."""
    name = test.function.rpartition(".")[2]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(module_with(test, f"{test.indent}pass\n"))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        function = max((f for f in functions if f.name == name), key=lambda f: f.lineno)
        examples = doctest.DocTestParser().get_examples(ast.get_docstring(function, clean=False) or "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return [example for example in examples if not example.options.get(doctest.SKIP)]


def _expects(example: doctest.Example) -> bool:
    return bool(example.want)


def _meets(wanted: doctest.Example, found: dict[str, str | None]) -> bool:
    flags = sum(flag for flag, is_on in wanted.options.items() if is_on)
    output, error = found["output"] or "", found["error"]
    checker = doctest.OutputChecker()
    if error is None:
        return wanted.exc_msg is None and checker.check_output(wanted.want, output, flags)
    if wanted.exc_msg is None:
        return False
    if flags & doctest.IGNORE_EXCEPTION_DETAIL:
        return _kind(wanted.exc_msg) == _kind(error)
    return checker.check_output(wanted.exc_msg, error, flags)


def _kind(message: str) -> str:
    """`module.Error: what` -> `Error`, as doctest's IGNORE_EXCEPTION_DETAIL compares."""
    return message.partition("\n")[0].partition(":")[0].strip().rpartition(".")[2]


def _answers(output: bytes) -> list[dict[str, str | None]]:
    """As many whole and well-formed lines as there are from the beginning: what comes out of there is not trusted."""
    answers: list[dict[str, str | None]] = []
    for line in output.splitlines():
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(answer, dict) or not all(isinstance(answer.get(k), str | None) for k in ("output", "error")):
            break
        answers.append({"output": answer.get("output"), "error": answer.get("error")})
    return answers


@cache
def _program() -> str:
    """Without its `from __future__`, which has to come first in a file and is not needed to run it."""
    return _PROGRAM.read_text(encoding="utf-8").replace("from __future__ import annotations\n", "")
