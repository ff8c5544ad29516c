"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from elias.domain.run import Run, RunState
from elias.ports.stores import RunStore

PATIENCE_S = 900.0
"""Far longer than anything takes that works: a busy machine must not make a test fail."""
Seen = TypeVar("Seen")


def wait_until(happened: Callable[[], Seen | None], told: Callable[[], object] = lambda: "no more is known") -> Seen:
    """What `happened` says, once it says something. Raises AssertionError with what is `told` when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := happened()):
        assert time.monotonic() < deadline, f"it did not happen in {PATIENCE_S:.0f} s: {told()}"
        time.sleep(0.02)
    return seen


def wait_for_end(runs: RunStore, run_id: str) -> Run:
    """The run, once it has ended. Raises AssertionError where it failed."""

    def ended() -> Run | None:
        run = runs.get(run_id)
        assert run.state is not RunState.FAILED, run
        return run if run.state.is_final else None

    return wait_until(ended, lambda: runs.get(run_id))
