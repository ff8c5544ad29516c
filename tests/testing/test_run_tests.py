"""What `make test` makes of a test that fails once, in a project of its own with one test or three."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "run_tests.py"
ONCE = """
from pathlib import Path
def test_it():
    seen = Path(__file__).with_suffix(".seen")
    was_there = seen.exists()
    seen.touch()
    assert was_there
"""
ALWAYS = "def test_it():\n    assert False\n"


def run(folder: Path, tests: dict[str, str]) -> tuple[int, str]:
    for name, text in tests.items():
        (folder / name).write_text(text)
    ran = subprocess.run([sys.executable, TOOL, "1"], cwd=folder, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout


def test_one_that_fails_once_is_named_and_passes(tmp_path: Path) -> None:
    code, said = run(tmp_path, {"test_a.py": ONCE, "test_b.py": "def test_it():\n    pass\n"})
    assert code == 0
    assert "assert was_there" in said, "its first failure is shown in full"
    assert "UNSTEADY" in said and "test_a.py::test_it" in said.splitlines()[-1]


def test_one_that_fails_twice_fails(tmp_path: Path) -> None:
    code, said = run(tmp_path, {"test_a.py": ALWAYS, "test_b.py": ONCE})
    assert code == 1 and "failed both times" in said


@pytest.mark.parametrize(
    "tests",
    [
        {"test_kills.py": ONCE},
        {"test_spend.py": ONCE},
        {"test_a.py": ONCE, "test_b.py": ONCE, "test_c.py": ONCE},
        {"test_a.py": "import no_such_module\n"},
    ],
)
def test_kills_money_many_and_what_never_ran_get_no_second_look(tmp_path: Path, tests: dict[str, str]) -> None:
    code, said = run(tmp_path, tests)
    assert code != 0 and "once more" not in said


def test_where_nothing_fails_nothing_is_run_again(tmp_path: Path) -> None:
    assert run(tmp_path, {"test_a.py": "def test_it():\n    pass\n"})[0] == 0
