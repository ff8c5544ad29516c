"""Why a segment cannot go on: words for a person, a kind for whoever plans the next one. Standard library only."""

from __future__ import annotations

import errno

from elias_trainer.contract import Failure, FailureKind

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_EXIT_CODES = {FailureKind.USER: 2, FailureKind.VERIFICATION: 4}


class Refusal(Exception):
    """Raised by the trainer on purpose; becomes the `failure` of result.json."""

    def __init__(self, kind: FailureKind, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind=kind, message=message, fix=fix)


def exit_code(failure: Failure) -> int:
    """2 the user can fix it, 4 something is not what it claims to be, 5 the world."""
    return _EXIT_CODES.get(failure.kind, 5)


def failure_of(error: BaseException) -> Failure:
    """Any error as a Failure; vendor errors are known by name and text, so that no vendor is imported here."""
    if isinstance(error, Refusal):
        return error.failure
    if _is_out_of_memory(error):
        return Failure(
            kind=FailureKind.CAPACITY,
            message=f"out of memory: {_first_line(error)}",
            fix="lower batch_size (and raise accumulation), or sequence_length; or set gradient_checkpointing, "
            "or method qlora; or take a place with more memory",
        )
    if _is_disk_full(error):
        return Failure(
            kind=FailureKind.INFRASTRUCTURE,
            message=f"the disk is full, or a quota on it is: {_first_line(error)}",
            fix="free space where the output folder and the model cache are, then start the segment again: "
            "it goes on from its newest checkpoint",
        )
    if isinstance(error, ImportError):
        name = error.name or _first_line(error)
        return Failure(
            kind=FailureKind.USER,
            message=f"the Python package {name} is missing or cannot be imported: {_first_line(error)}",
            fix="pip install 'elias-node[train,starter]', which holds the versions that work together",
        )
    return Failure(
        kind=FailureKind.INFRASTRUCTURE,
        message=f"{type(error).__name__}: {_first_line(error)}",
        fix="read the trainer's log for the whole story; starting the segment again goes on from its newest checkpoint",
    )


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text))
    )


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    # safetensors reports the operating system's error as text only
    return any(f"os error {number}" in str(error) for number in _DISK_FULL)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
