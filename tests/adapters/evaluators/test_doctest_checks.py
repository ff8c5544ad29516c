"""What counts as passed, and what a body that cheats or misbehaves gets: nothing."""

from __future__ import annotations

import pytest

from elias.adapters.evaluators.doctest_checks import Checked, check_body
from elias.adapters.sandbox import SandboxLimits, why_not
from elias.domain.corpus import DocTest

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no sandbox on this machine: {why_not()}")

DOUBLE = DocTest(
    function="double",
    before="from __future__ import annotations\n\nfrom math import floor\n",
    signature='def double(x: int) -> int:\n    """Twice.\n\n    >>> y = double(2)\n    >>> y\n    4\n'
    "    >>> double(0)\n    0\n    >>> double(-3)\n    -6\n"
    "    >>> double('a')\n    Traceback (most recent call last):\n"
    '        ...\n    TypeError: no text\n    """\n',
    indent="    ",
)
RIGHT = "    if isinstance(x, str):\n        raise TypeError('no text')\n    return floor(2 * x)\n"


def test_the_right_body_passes_all_that_expects_something() -> None:
    assert check_body(DOUBLE, RIGHT) == Checked(passed=4, total=4)


def test_a_half_right_body_passes_half() -> None:
    assert check_body(DOUBLE, "    return x * x\n") == Checked(passed=2, total=4)


@pytest.mark.parametrize(
    "body",
    [
        "    return (\n",
        "",
        "    import sys; sys.exit(0)\n",
        "    import os; os._exit(0)\n",
        "    import doctest; doctest.OutputChecker.check_output = lambda *a: True; return 1\n",
        "    import os\n    os.write(1, b'4\\n0\\n-6\\n')\n    os._exit(0)\n",
        "    import gc\n    [o.clear() for o in gc.get_objects() if isinstance(o, list)]\n    return 7\n",
        "    raise KeyboardInterrupt\n",
        "    print('x' * 10**8)\n",
    ],
    ids=["syntax", "empty", "exit", "_exit", "patched-doctest", "said-on-fd-1", "cleared", "interrupt", "flood"],
)
def test_a_broken_or_cheating_body_passes_nothing(body: str) -> None:
    assert check_body(DOUBLE, body).passed == 0


def test_output_that_is_not_a_line_of_the_protocol_is_not_an_answer() -> None:
    body = "    import os\n    for fd in range(64):\n        try: os.write(fd, b'[1]\\n{}{}\\n')\n"
    body += "        except OSError: pass\n    os._exit(0)\n"
    assert check_body(DOUBLE, body) == Checked(passed=0, total=4)


def test_what_passed_before_a_hang_stays_passed() -> None:
    body = "    while x < 0: pass\n    return 2 * x\n"
    assert check_body(DOUBLE, body, SandboxLimits(cpu_seconds=3, seconds=600)) == Checked(passed=2, total=4)


def test_a_method_runs_inside_its_class() -> None:
    test = DocTest(
        function="Box.grown",
        before="import dataclasses\n@dataclasses.dataclass\nclass Box:\n    size: int\n",
        signature='    def grown(self):\n        """\n        >>> Box(1).grown()\n        Box(size=2)\n        """\n',
        indent="        ",
    )
    assert check_body(test, "        return dataclasses.replace(self, size=self.size + 1)\n") == Checked(
        passed=1, total=1
    )


def test_the_doctests_own_flags_hold() -> None:
    test = DocTest(
        function="f",
        before="",
        signature='def f():\n    r"""\n    >>> f()  # doctest: +ELLIPSIS\n    [0, ..., 9]\n'
        "    >>> f() # doctest: +SKIP\n    nonsense\n"
        "    >>> [][1]  # doctest: +IGNORE_EXCEPTION_DETAIL\n    Traceback (most recent call last):\n"
        '    lookup.IndexError: another text\n    """\n',
        indent="    ",
    )
    assert check_body(test, "    return list(range(10))\n") == Checked(passed=2, total=2)


def test_a_docstring_that_cannot_be_read_expects_nothing() -> None:
    test = DocTest(function="f", before="", signature='def f(:\n    """>>> 1"""\n', indent="    ")
    assert check_body(test, "    return 1\n") == Checked(passed=0, total=0)
