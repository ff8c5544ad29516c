"""How this machine's trainer makes way: it is told to pause, and stopped where that takes too long.

A pause (SIGTERM) frees processor and memory, and the trainer leaves even a step of minutes within moments: it is given
up between two of the model's modules and done again later. Where one module, or a large checkpoint, takes longer than
`FREEZE_AFTER_S`, the trainer's group is stopped in the middle (SIGSTOP), and goes on to its pause once the machine is
free.
"""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from elias.adapters.backends.output import read_json
from elias.adapters.backends.process import ProcessIdentity
from elias.domain.run import SegmentFailure
from elias_trainer.contract import FailureKind, write_whole

FREEZE_AFTER_S = 6.0
_MARK, _FROZEN, _UNWANTED = "made_way.json", "frozen", "unwanted"


def ask(segment: Path, identity: ProcessIdentity | None, why: str) -> None:
    """The first call asks it to pause, later ones see to it. The mark stays: it is why the segment ended."""
    mark = read_json(segment / _MARK)
    if mark is None:
        mark = {"why": why, "at": time.time()}
        write_whole(segment / _MARK, json.dumps(mark).encode())
        if identity is not None:
            identity.signal_group(signal.SIGTERM)
    if identity is None:
        write_whole(segment / _UNWANTED, b"")  # it waits for its turn, and is not to be launched any more
    elif time.time() - mark["at"] >= FREEZE_AFTER_S and not (segment / _FROZEN).exists():
        write_whole(segment / _FROZEN, b"")
        identity.signal_group(signal.SIGSTOP)


def thaw(segment: Path, identity: ProcessIdentity | None) -> None:
    """Of no effect on one that was not stopped."""
    if identity is not None and (segment / _FROZEN).exists():
        identity.signal_group(signal.SIGCONT)
        (segment / _FROZEN).unlink(missing_ok=True)


def why_it_made_way(segment: Path) -> SegmentFailure | None:
    """None for one that nobody asked to."""
    mark = read_json(segment / _MARK)
    if mark is None:
        return None
    return SegmentFailure(
        kind=FailureKind.PREEMPTED, message=f"it made way: {mark['why']}", fix="nothing: it goes on by itself"
    )
