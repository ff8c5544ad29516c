"""What a function needs from its own module so that its doctests can run, found by following names."""

from __future__ import annotations

import ast
import doctest
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Import = ast.Import | ast.ImportFrom


def context_of(module: ast.Module, lines: list[str], path: Sequence[Definition], tests: str) -> str | None:
    """Code to stand right before the function, which is the last of `path`; its classes are left open at the end.

    None where it cannot be given as whole lines, or needs a module beside this one that would not be there.
    """
    outermost, function = path[0], path[-1]
    wanted = {*_names(*path), *_doctest_names(tests)}
    statements = [*_needed(module, outermost, wanted)]
    if any(_is_relative(node) for statement in statements for node in ast.walk(statement)):
        return None
    parts = [_text(lines, statement) for statement in statements]
    for owner, member in pairwise(path):
        if owner.body[0].lineno == owner.lineno:
            return None
        parts.append(_opened(lines, owner, member, function))
    return "\n".join(parts) + "\n" if parts else ""


def imports_of(module: ast.Module, lines: list[str], function: Definition) -> str:
    """The module's import lines that the function itself uses."""
    wanted = _names(function)
    imports = [node for node in module.body if isinstance(node, Import) and not wanted.isdisjoint(_bound(node))]
    return "".join(_text(lines, node) + "\n" for node in imports)


def _needed(module: ast.Module, target: Definition, wanted: set[str]) -> Iterator[ast.stmt]:
    """Top-level statements that bind a wanted name, and those that bind what these use, in the module's order."""
    rest = [node for node in module.body if node is not target and not _is_main_guard(node)]
    binds = [_bound(node) for node in rest]
    taken: set[int] = set()
    names = set(wanted)
    grew = True
    while grew:
        grew = False
        for number, node in enumerate(rest):
            if number in taken or not (_always(node) or not names.isdisjoint(binds[number])):
                continue
            if target.name in _names_at_once(node):
                continue  # it would run before the function is there
            taken.add(number)
            names |= _names(node)
            grew = True
    return (node for number, node in enumerate(rest) if number in taken)


def _opened(lines: list[str], owner: ast.ClassDef | Definition, member: Definition, function: Definition) -> str:
    """The class up to its end, without `member`, which is to follow."""
    start = min([owner.lineno, *(decorator.lineno for decorator in owner.decorator_list)])
    header = lines[start - 1 : _first_line(owner.body[0]) - 1]
    others = [
        _text(lines, node)
        for node in owner.body
        if node is not member and not _same_name(node, member) and member.name not in _names_at_once(node)
    ]
    return "\n".join(["\n".join(header), *others])


def _same_name(node: ast.stmt, member: Definition) -> bool:
    """A property's setter, or another overload: it would need the member, or be replaced by it."""
    return isinstance(node, Definition) and node.name == member.name


def _text(lines: list[str], node: ast.stmt) -> str:
    return "\n".join(lines[_first_line(node) - 1 : node.end_lineno])


def _first_line(node: ast.stmt) -> int:
    decorators = node.decorator_list if isinstance(node, Definition) else []
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _names(*nodes: ast.AST) -> set[str]:
    return {inner.id for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _names_at_once(node: ast.stmt) -> set[str]:
    """Names read when the statement itself runs: of a definition its decorators, bases and defaults."""
    if isinstance(node, ast.ClassDef):
        inner = (_names_at_once(statement) for statement in node.body)
        return _names(*node.decorator_list, *node.bases, *node.keywords).union(*inner)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        defaults = [value for value in (*node.args.defaults, *node.args.kw_defaults) if value is not None]
        return _names(*node.decorator_list, *defaults)
    return set() if isinstance(node, Import) else _names(node)


def _bound(node: ast.stmt) -> set[str]:
    """Names that a top-level statement makes, inside an `if`, a `try` or a loop too."""
    if isinstance(node, Definition):
        return {node.name}
    return set(_bound_in(ast.walk(node)))


def _bound_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Import):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, Definition):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _always(node: ast.stmt) -> bool:
    """`from __future__` changes what the rest means; nobody knows what a `*` brings."""
    return isinstance(node, ast.ImportFrom) and (
        node.module == "__future__" or any(alias.name == "*" for alias in node.names)
    )


def _is_relative(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level > 0


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in _names(node.test)


def _doctest_names(tests: str) -> set[str]:
    names: set[str] = set()
    for example in doctest.DocTestParser().get_examples(tests):
        try:
            names |= _names(ast.parse(example.source))
        except (SyntaxError, ValueError):
            continue  # it is meant to fail to parse, or will
    return names
