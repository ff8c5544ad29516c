"""Folders under `cache/` for what an evaluation lays out: private data, so that none outlives a kill -9 for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FRESH_S = 60.0
"""A younger folder may not be locked yet by the process that has just made it."""


@contextmanager
def scratch_folder(cache: Path, prefix: str) -> Iterator[Path]:
    """One of its own, locked while it is used; those that a killed process left behind are removed first."""
    cache.mkdir(parents=True, exist_ok=True)
    remove_abandoned(cache, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=cache) as name:
        handle = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(name)
        finally:
            os.close(handle)


def remove_abandoned(cache: Path, prefix: str) -> None:
    """A lock ends with its process, in any way: a folder that nobody holds is nobody's."""
    for folder in cache.glob(f"{prefix}*"):
        with suppress(FileNotFoundError, NotADirectoryError):
            if time.time() - folder.stat().st_mtime > FRESH_S and _is_nobodys(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_nobodys(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
