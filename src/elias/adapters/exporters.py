"""A corpus as a file for others: written whole, or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from elias.errors import InputError, StoreError


def export_jsonl(stream: BinaryIO, out: Path) -> None:
    """Readable by its owner alone. Raises InputError for a place that cannot be, StoreError for a full disk."""
    if out.is_dir():
        raise InputError(f"{out} is a folder", fix=f"give a file: --out {shlex.quote(str(out / 'corpus.jsonl'))}")
    scratch = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
            shutil.copyfileobj(stream, target)
            target.flush()
            os.fsync(target.fileno())
        scratch.replace(out)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{out.parent} is not a folder", fix=f"mkdir -p {shlex.quote(str(out.parent))}") from error
    except OSError as error:
        fix = f"make room, or choose another place: df -h {shlex.quote(str(out.parent))}"
        raise StoreError(f"{out}: {error.strerror}", kept=f"{out} is as it was", fix=fix) from error
    finally:
        with suppress(OSError):
            scratch.unlink()
