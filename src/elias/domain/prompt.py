"""How a task is put to a chat model, and how its answer becomes code again: each the other's inverse."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence

_ASK = "Complete this Python function. Answer with its body alone, in a code block."
_ASK_CHANGE = "Write the change that this commit message describes, as a unified diff."
_FENCE = re.compile(
    r"^[ \t]*(?P<ticks>`{3,})[^\n`]*(?:\n|\Z)(?P<code>.*?)(?:^[ \t]*(?P=ticks)`*[ \t]*$|\Z)", re.M | re.S
)
_LONGEST_TAIL = 200
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def code_prompt(signature: str) -> str:
    """What the user says: `signature` is the `def` line with its decorators, up to and including the docstring."""
    return f"{_ASK}\n\n{fenced(signature, 'python')}"


def code_answer(body: str) -> str:
    """What the assistant says: the body as it stands in its file, indentation included."""
    return fenced(body, "python")


def change_prompt(message: str, files: Sequence[str] = ()) -> str:
    """A commit's message, and the files that the change may touch."""
    names = "".join(f"\n- {name}" for name in files)
    return f"{_ASK_CHANGE}\n\n{message}" + (f"\n\nFiles:{names}" if names else "")


def change_answer(diff: str) -> str:
    return fenced(diff, "diff")


def fenced(text: str, language: str) -> str:
    """In a Markdown code block whose fence is longer than any run of backticks in `text`."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    ticks = "`" * (longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def body_of(answer: str, indent: str, function: str | None = None) -> str:
    """The body in an answer, indented by `indent` and ending in a newline; empty when the answer is.

    Understands a bare body, a fence, prose around it, and an answer that repeats the whole function (`function` is
    its dotted name and picks one of several). What is not Python comes back as it is, for whoever runs it to fail on.
    """
    code = _unfenced(answer.replace("\r\n", "\n").replace("\r", "\n"))
    lines = code.split("\n")
    lines = _inside(lines, function and function.rpartition(".")[2]) or lines
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ""
    return "\n".join(_python_at(lines, indent)).rstrip() + "\n"


def _unfenced(answer: str) -> str:
    """The first code block, closed or cut off; the whole answer where there is none."""
    found = _FENCE.search(answer)
    return found["code"] if found else answer


def _inside(lines: Sequence[str], name: str | None) -> list[str] | None:
    """The body's lines when the code is a whole function again, and not a body that starts with an inner one."""
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    flat = [line[margin:] for line in lines]
    for end in _ends(len(flat)):
        tree = _parsed("\n".join(flat[:end]))
        if tree is not None:
            break
    else:
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    node = next((f for f in functions if f.name == name), None)
    if node is None and all(isinstance(statement, _DEFINITIONS) for statement in tree.body):
        node = next(iter(functions), None)
    if node is None:
        return None
    if node.body[0].lineno == node.lineno:
        return [line for statement in node.body for line in ast.unparse(statement).split("\n")]
    documented = ast.get_docstring(node, clean=False) is not None
    first = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    return flat[first : node.end_lineno]


def _python_at(lines: list[str], indent: str) -> list[str]:
    """The longest beginning that is a body at `indent`; all lines, shifted, when none is."""
    shifted = _shifted(lines, indent)
    first_only = [indent + lines[0].lstrip(), *lines[1:]]
    for end in _ends(len(lines)):
        for candidate in (shifted, first_only):
            if _parsed("async def _():\n" + "\n".join(candidate[:end]) + "\n") is not None:
                return candidate[:end]
    return shifted


def _shifted(lines: Sequence[str], indent: str) -> list[str]:
    """All lines moved by as much as brings the first one to `indent`."""
    have = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    if have == indent:
        return list(lines)
    return [indent + line.removeprefix(have) if line.strip() else line for line in lines]


def _ends(count: int) -> Iterator[int]:
    """Where to try to cut: nowhere first, then line by line from the end, where a model begins to chat."""
    return iter(range(count, max(0, count - _LONGEST_TAIL), -1))


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
