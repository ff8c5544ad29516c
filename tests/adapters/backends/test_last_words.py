"""What is quoted of a program that ended without a result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from elias.adapters.backends.last_words import TAIL_BYTES, last_words
from elias_trainer.contract import EVENT_PREFIX

FUTURE = "/x/torch/nn.py:12: FutureWarning: `a` is deprecated\n  warnings.warn('a')\n"
TRACE = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n    ^^^\n'


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        (FUTURE, ""),
        (f"loading\n{FUTURE}", "loading"),
        (f"{TRACE}torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\n{FUTURE}", "torch.OutOfMemoryError: CUDA"),
        (f"{TRACE}KeyError: 'a'\n\nDuring handling …:\n\n{TRACE}ValueError: b\nand more of it\n", "ValueError: b"),
        (f"{TRACE}ValueError: b\nSegmentation fault (core dumped)\n", "ValueError: b"),
        ("free(): invalid pointer\nFatal Python error: Aborted\n", "Fatal Python error: Aborted"),
        ("Killed\n 45%|####      | 3/10\n\n", "Killed"),
        (f"moving weights\n{EVENT_PREFIX}{{}}\n", "moving weights"),
        ("[W1124 socket.cpp:460] Warning: no route\n[rank0]: RuntimeError: NCCL\n", "[rank0]: RuntimeError: NCCL"),
        ("UserWarning: old\nDeprecationWarning: older\n", ""),
    ],
)
def test_the_line_that_says_why_is_quoted_and_no_warning(tmp_path, log, words):
    (tmp_path / "log.txt").write_text(log)
    found = last_words(tmp_path / "log.txt")
    assert found.startswith(words) and bool(found) == bool(words)


def test_a_real_program_that_warns_and_dies_is_quoted_with_its_error(tmp_path: Path):
    program = (
        "import atexit, warnings\n"
        "atexit.register(lambda: warnings.warn('much later', FutureWarning))\n"
        "warnings.warn('soon', FutureWarning)\n"
        "raise MemoryError('no room for 7 GiB')\n"
    )
    with (tmp_path / "log.txt").open("wb") as log:
        subprocess.run([sys.executable, "-c", program], stderr=log, check=False)
    assert last_words(tmp_path / "log.txt") == "MemoryError: no room for 7 GiB"


def test_of_a_long_log_only_the_end_is_read_and_none_at_all_is_no_word(tmp_path: Path):
    (tmp_path / "log.txt").write_bytes(b"x" * (3 * TAIL_BYTES) + b"\nthe end\n")
    assert last_words(tmp_path / "log.txt") == "the end"
    assert last_words(tmp_path / "absent.txt") == ""
