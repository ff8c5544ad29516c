"""Documented functions in a Python module, cut out of its text by whole lines."""

from __future__ import annotations

import ast
import doctest
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from elias.adapters.sources.python_context import context_of, imports_of

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentedFunction:
    name: str
    """Dotted name inside the module, as `Class.method`."""
    line: int
    """1 is the first."""
    signature: str
    """Decorators, the `def` line, the docstring: whole lines."""
    body: str
    """All that follows, as whole lines."""
    context: str
    """Code that goes before `signature` so that the doctests find what they use; else the imports it uses."""
    doctests: str | None
    """The docstring's examples; None where it has none, or where they could not be reached from outside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A function and the classes around it, outermost first."""

    function: Function
    classes: tuple[ast.ClassDef, ...]
    is_conditional: bool
    """Below an `if`, `try` or `with`."""

    @property
    def name(self) -> str:
        return ".".join([*(owner.name for owner in self.classes), self.function.name])


def documented_functions(text: str) -> list[DocumentedFunction]:
    """In the order of the text. Raises SyntaxError, ValueError, RecursionError or MemoryError as the parser does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        module = ast.parse(text)
        lines = text.split("\n")  # as the parser counts lines; splitlines() would also break at a form feed
        return [made for place in _places(module.body, (), conditional=False) if (made := _made(place, module, lines))]


def _places(body: Sequence[ast.stmt], classes: tuple[ast.ClassDef, ...], *, conditional: bool) -> Iterator[Place]:
    """A function inside a function is part of the outer one's body, and no task of its own."""
    for statement in body:
        if isinstance(statement, Function):
            yield Place(function=statement, classes=classes, is_conditional=conditional)
        elif isinstance(statement, ast.ClassDef):
            yield from _places(statement.body, (*classes, statement), conditional=conditional)
        else:
            for inner in _blocks(statement):
                yield from _places(inner, classes, conditional=True)


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for handler in getattr(statement, "handlers", []):
        yield handler.body


def _made(place: Place, module: ast.Module, lines: list[str]) -> DocumentedFunction | None:
    function = place.function
    docstring = ast.get_docstring(function, clean=False)
    if docstring is None or _is_stub(function.body[1:]):
        return None
    last_of_docstring = function.body[0].end_lineno or 0
    if function.body[0].lineno == function.lineno or function.body[1].lineno <= last_of_docstring:
        return None  # docstring and code share a line: there is no line to cut at
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    signature = "\n".join(lines[first - 1 : last_of_docstring]) + "\n"
    tests = None if place.is_conditional else _doctests(docstring)
    context = context_of(module, lines, (*place.classes, function), tests) if tests else None
    return DocumentedFunction(
        name=place.name,
        line=function.lineno,
        signature=signature,
        body="\n".join(lines[last_of_docstring : function.end_lineno]).lstrip("\n") + "\n",
        context=imports_of(module, lines, function) if context is None else context,
        doctests=None if context is None else tests,
    )


def _is_stub(rest: Sequence[ast.stmt]) -> bool:
    """Nothing, `...`, `pass`, or a bare `raise NotImplementedError`: a place for a body, not one."""
    return all(_does_nothing(statement) for statement in rest)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Raise) and statement.exc is not None:
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return isinstance(statement, ast.Pass)


def _doctests(docstring: str) -> str | None:
    """The examples alone, as `>>>` lines with what they expect; None where there are none or they do not parse."""
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return None
    if not examples:
        return None
    return "".join(_shown(example) for example in examples)


def _shown(example: doctest.Example) -> str:
    first, *rest = example.source.rstrip("\n").split("\n")
    return "".join([f">>> {first}\n", *(f"... {line}\n" for line in rest), example.want])
