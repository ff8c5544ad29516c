"""What a model is asked and answers: the inverse holds, and a chatty answer still becomes a body."""

from __future__ import annotations

import ast
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.prompt import body_of, change_answer, change_prompt, code_answer, code_prompt, fenced


def test_a_prompt_holds_the_signature_in_a_fence() -> None:
    assert code_prompt('def f(x):\n    """Doc."""').endswith('```python\ndef f(x):\n    """Doc."""\n```')


def test_a_change_names_its_message_and_files() -> None:
    prompt = change_prompt("Fix the sum", ["a.py", "b.py"])
    assert "Fix the sum" in prompt
    assert prompt.endswith("Files:\n- a.py\n- b.py")
    assert change_answer("--- a/a.py\n") == "```diff\n--- a/a.py\n```"


@pytest.mark.parametrize("indent", ["    ", "        ", "\t", "  "])
@pytest.mark.parametrize(
    "body",
    [
        "return x",
        "# why\nif x:\n    return 1\n\nreturn 2",
        "text = '''\nat the margin\n```\nfence\n```\n'''\nreturn text",
        "def inner():\n    return 1\nreturn inner",
        "async with x as y:\n    await y\nyield y",
    ],
)
def test_an_answer_becomes_the_very_body_it_was_made_of(body: str, indent: str) -> None:
    if "'''" in body:
        original = "\n".join([indent + line if n in (0, 6) else line for n, line in enumerate(body.split("\n"))])
    else:
        original = textwrap.indent(body, indent)
    assert body_of(code_answer(original + "\n"), indent) == original + "\n"


@pytest.mark.parametrize(
    "answer",
    [
        "return x + 1",
        "    return x + 1\n",
        "```\nreturn x + 1\n```",
        "```python\n    return x + 1",
        "~~~\nSure:\n```py\nreturn x + 1\n```\nThat adds one.",
        "Here it is.\r\n```python\r\n        return x + 1\r\n```\r\n",
        'def f(x):\n    """Add one."""\n    return x + 1\n',
        'import os\n\n@cache\ndef f(x: int) -> int:\n  """Add\n  one."""\n  return x + 1\n\nf(2)',
        "class A:\n    def f(self, x):\n        return x + 1\n",
        "def f(x): return x + 1",
        "return x + 1\n\nThis function adds one to x.",
    ],
)
def test_however_a_model_puts_it_the_body_is_found(answer: str) -> None:
    assert body_of(answer, "    ", "A.f") == "    return x + 1\n"


def test_the_named_function_is_taken_out_of_several() -> None:
    answer = "def helper():\n    return 1\n\ndef f(x):\n    return helper()\n"
    assert body_of(answer, "  ", "f") == "  return helper()\n"


def test_a_first_line_whose_indentation_a_template_trimmed_is_put_back() -> None:
    assert body_of("y = x\n    return y", "    ") == "    y = x\n    return y\n"


@pytest.mark.parametrize("answer", ["", "   \n\n", "```", "```python\n```"])
def test_an_empty_answer_has_an_empty_body(answer: str) -> None:
    assert body_of(answer, "    ") == ""


@given(st.text(), st.sampled_from(["    ", "\t"]))
def test_no_answer_whatsoever_breaks_it(answer: str, indent: str) -> None:
    body = body_of(answer, indent)
    assert body == "" or body.endswith("\n")


@given(st.text(alphabet="`abc\n "))
def test_a_fence_is_longer_than_any_inside(text: str) -> None:
    ticks = fenced(text, "python").split("python")[0]
    assert ticks not in text


def test_what_it_gives_parses_as_a_body() -> None:
    ast.parse("def f():\n" + body_of("for i in x:\n  if i:\n    return i\nSo that is it, you see", "    "))
