"""The files of a folder in which another process may be at work."""

from __future__ import annotations

import os
from pathlib import Path


def files_under(folder: Path) -> list[Path]:
    """Those found; a folder that goes away meanwhile is no error, as it is to `Path.rglob` of Python 3.11."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def named(folder: Path, pattern: str) -> list[Path]:
    return [path for path in files_under(folder) if path.match(pattern)]


def files_with(folder: Path, data: bytes) -> list[Path]:
    """Those that hold `data`."""
    return [path for path in files_under(folder) if data in read(path)]


def read(path: Path) -> bytes:
    """Nothing, of a file that is gone by now."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
