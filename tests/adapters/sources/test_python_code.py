"""Documented functions out of Python source: exact text, whatever stands around it."""

from __future__ import annotations

import doctest
import heapq
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.sources.python_code import PythonCode
from elias.domain.label import Label
from elias.domain.session import Session
from elias.errors import InputError
from elias.ports.source import Skipped, SourceContext

PLAIN = 'def f(x):\n    """Doc."""\n    return x\n'


def read(context: SourceContext, location: Path) -> tuple[list[Session], list[Skipped]]:
    items = list(PythonCode(context).read(location))
    return [i for i in items if isinstance(i, Session)], [i for i in items if isinstance(i, Skipped)]


def captured(context: SourceContext, tmp_path: Path, code: str | bytes) -> dict[str, dict[str, str]]:
    """Function name -> kind -> text."""
    (tmp_path / "m.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    sessions, _ = read(context, tmp_path)
    return {str(s.events[-1].name): {e.kind: e.text for e in s.events} for s in sessions}


def run(found: dict[str, str], name: str) -> doctest.TestResults:
    """As an evaluator does: what comes before, the signature, the body, then the doctests."""
    space: dict[str, Any] = {"__name__": "m"}
    exec(compile(found.get("context", "") + found["task"] + found["solution"], "m", "exec", dont_inherit=True), space)
    test = doctest.DocTestParser().get_doctest(found["test"], space, name, None, None)
    return doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None)


def test_a_function_is_cut_into_signature_with_docstring_and_body(context: SourceContext, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(PLAIN)
    (session,), skipped = read(context, tmp_path)
    assert [(e.kind, e.text, e.name) for e in session.events] == [
        ("task", 'def f(x):\n    """Doc."""\n', "f"),
        ("solution", "    return x\n", "f"),
    ]
    assert (session.label, session.stage, session.source, session.evidence) == (Label.SHARED, 2, "code", ())
    assert session.origin == {"path": str(tmp_path), "file": "m.py", "line": "1"}
    assert not skipped


def test_methods_async_decorators_and_nested_classes_are_found(context: SourceContext, tmp_path: Path) -> None:
    code = '''
class A:
    class B:
        @property
        @cache  # why
        def p(self):
            "Doc."
            return 1

    async def go(self):
        """Doc."""

        # first
        await x
'''
    found = captured(context, tmp_path, code)
    assert found.keys() == {"A.B.p", "A.go"}
    assert found["A.B.p"]["task"].startswith("        @property\n        @cache  # why\n")
    assert found["A.go"]["solution"] == "        # first\n        await x\n"


@pytest.mark.parametrize("body", ["...", "pass", "raise NotImplementedError", "raise NotImplementedError('no')", ""])
def test_a_stub_is_no_solution(context: SourceContext, tmp_path: Path, body: str) -> None:
    assert not captured(context, tmp_path, f'def f():\n    """Doc."""\n    {body}\n')


@pytest.mark.parametrize(
    "code", ["def f(): 'Doc.'; return 1\n", "def f():\n    'Doc.'; return 1\n", "def f(): return 1\n"]
)
def test_code_on_the_docstrings_line_cannot_be_cut_and_is_left(
    context: SourceContext, tmp_path: Path, code: str
) -> None:
    assert not captured(context, tmp_path, code)


def test_a_function_inside_a_function_is_part_of_its_body(context: SourceContext, tmp_path: Path) -> None:
    code = 'def f():\n    """Doc."""\n    def g():\n        """Doc."""\n        return 1\n    return g\n'
    assert captured(context, tmp_path, code).keys() == {"f"}


@pytest.mark.parametrize(
    "code",
    [
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("    ", "\t").encode(),
        b"# -*- coding: latin-1 -*-\n" + PLAIN.replace("Doc", "Dôc").encode("latin-1"),
        b"\x0c\n" + PLAIN.encode(),
    ],
)
def test_line_ends_marks_tabs_and_encodings_are_read_as_python_reads_them(
    context: SourceContext, tmp_path: Path, code: bytes
) -> None:
    found = captured(context, tmp_path, code)["f"]
    assert found["solution"].strip() == "return x"
    assert "\r" not in found["task"]
    assert "c." in found["task"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (b"def f(:\n", "not Python"),
        (b"# coding: klingon\n", "unknown encoding"),
        (b"# coding: rot13\n", "rot13"),
        (b"# coding: ascii\nx = '\xe9'\n", "0xe9"),
        (b"x = '\xe9'\n", "not Python"),
        (b"x = '\0'\n", "NUL"),
        (b"(" * 5000, "not Python|nested"),
    ],
)
def test_a_bad_file_is_told_and_the_good_one_kept(
    context: SourceContext, tmp_path: Path, code: bytes, why: str
) -> None:
    (tmp_path / "bad.py").write_bytes(code)
    (tmp_path / "good.py").write_text(PLAIN)
    sessions, (skipped,) = read(context, tmp_path)
    assert len(sessions) == 1
    assert re.search(why, skipped.why)
    assert skipped.where.startswith("bad.py")
    assert skipped.fix


def test_other_peoples_folders_and_links_that_loop_are_not_entered(context: SourceContext, tmp_path: Path) -> None:
    for name in (".git", "node_modules", "site-packages", "env"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.py").write_text(PLAIN)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "good.py").write_text(PLAIN)
    sessions, skipped = read(context, tmp_path)
    assert [session.origin["file"] for session in sessions] == ["good.py"]
    assert not skipped
    assert len(read(context, tmp_path / "site-packages")[0]) == 1


def test_a_copy_of_a_function_is_the_same_session(context: SourceContext, tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(PLAIN)
    assert len(read(context, tmp_path)[0]) == 1


def test_nothing_there_and_no_python_are_errors_with_a_fix(context: SourceContext, tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError) as caught:
            read(context, place)
        assert caught.value.fix


def test_a_tree_without_docstrings_says_what_is_missing(context: SourceContext, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("x = 1\n")
    sessions, (skipped,) = read(context, tmp_path)
    assert not sessions
    assert "docstring" in skipped.why


def test_the_context_is_what_the_doctest_needs_and_no_more(context: SourceContext, tmp_path: Path) -> None:
    code = '''
from __future__ import annotations
import math, json
import os
SCALE = 2
UNUSED = os.getcwd()
def helper(x):
    return x * SCALE
class Box:
    wide = 3
    def size(self):
        """
        >>> Box().size()
        6
        """
        return helper(self.other())
    alias = size
    def other(self):
        return math.floor(self.wide)
    @size.setter
    def size(self, x): ...
if __name__ == "__main__":
    SCALE = 9
'''
    found = captured(context, tmp_path, code)["Box.size"]
    assert "UNUSED" not in found["context"]
    assert "__main__" not in found["context"]
    assert "return helper(self.other())" not in found["context"]
    assert run(found, "Box.size") == doctest.TestResults(failed=0, attempted=1)


def test_without_doctests_the_context_is_the_imports_it_uses(context: SourceContext, tmp_path: Path) -> None:
    code = "import os\nimport re\n" + PLAIN.replace("return x", "return os.sep")
    assert captured(context, tmp_path, code)["f"]["context"] == "import os\n"


@pytest.mark.parametrize("lead", ["from . import helper\n", "if True:\n  from .a import helper\n"])
def test_doctests_that_need_a_neighbouring_module_are_no_test(
    context: SourceContext, tmp_path: Path, lead: str
) -> None:
    code = lead + 'def f():\n    """\n    >>> f()\n    1\n    """\n    return helper()\n'
    assert "test" not in captured(context, tmp_path, code)["f"]


@pytest.mark.parametrize("module", [heapq, statistics, json])
def test_the_standard_librarys_own_doctests_pass_on_what_was_captured(context: SourceContext, module: Any) -> None:
    file = Path(module.__file__)
    sessions, skipped = read(context, file.parent if file.name == "__init__.py" else file)
    assert len(sessions) > 5
    assert not skipped
    tested = 0
    for session in sessions:
        found = {e.kind: e.text for e in session.events}
        if "test" in found:
            results = run(found, session.title)
            assert results.failed == 0, session.title
            tested += results.attempted
    assert tested > 0
