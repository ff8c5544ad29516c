"""What a program said last that tells why it ended; libraries' warnings mostly stand after it, or instead of it."""

from __future__ import annotations

import re
from pathlib import Path

from elias_trainer.contract import EVENT_PREFIX

TAIL_BYTES = 1 << 16
"""A traceback through torch and transformers has some kilobytes."""
_TRACEBACK = "Traceback (most recent call last):"
_WARNING = re.compile(r":\d+: \w*Warning:|^\w*Warning:|^\[W\d+ |^(\S+ )?warning:|\bWARNING\b", re.IGNORECASE)
_PROGRESS = re.compile(r"\d+%\|")
_NOT_A_WORD = re.compile(r"^[\W\d_]*$")


def last_words(log: Path) -> str:
    """One line: the last traceback's error, else the last line that is no warning; empty where it said nothing."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith(EVENT_PREFIX)]
    return _error(lines) or _said(lines)


def _error(lines: list[str]) -> str:
    """The line that ends the last traceback: the first one below its frames, which are indented."""
    starts = [n for n, line in enumerate(lines) if line.strip().endswith(_TRACEBACK)]
    for start in reversed(starts):
        below = (line for line in lines[start + 1 :] if line and not line.startswith((" ", "\t")))
        if (error := next(below, "")) and not _WARNING.search(error):
            return error
    return ""


def _said(lines: list[str]) -> str:
    """A warning's second line, indented, is the source line that it was given at."""
    told, after_warning = "", False
    for line in lines:
        is_source = after_warning and line.startswith((" ", "\t"))
        after_warning = bool(_WARNING.search(line)) or is_source
        if not (after_warning or _PROGRESS.search(line) or _NOT_A_WORD.match(line)):
            told = line.strip()
    return told
