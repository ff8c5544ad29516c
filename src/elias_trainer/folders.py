"""Folders that appear whole or not at all, also after a power cut. Standard library only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elias_trainer.contract import sync_folder


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Fill the folder it gives; on leaving without an error that takes the place of `final`."""
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = final.with_name(f".{final.name}.{os.getpid()}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
        _sync_files(scratch)
        if final.exists():
            drop_folder(final)
        scratch.rename(final)
        sync_folder(final.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def drop_folder(folder: Path) -> None:
    """Renamed first: a kill in between, or a reader meanwhile, finds no torn folder under its name."""
    doomed = folder.with_name(f".{folder.name}.old.part")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def clear_leftovers(folder: Path) -> None:
    """What a killed process left half-written in `folder`. Only while no other process writes there."""
    for leftover in folder.glob(".*.part"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _sync_files(folder: Path) -> None:
    for path in folder.rglob("*"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(folder)
