"""A process known by its id and its birth: a recycled id is never taken for it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

POLL_S = 0.05
SAME_BIRTH_S = 0.5
"""psutil reads a birth from the boot time and clock ticks; the two reads of one process differ by less than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    pid: int
    born: float
    """Seconds since the epoch, as psutil's `create_time`."""

    def is_alive(self) -> bool:
        """A zombie is dead: it only waits to be counted."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < SAME_BIRTH_S
            return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False

    def signal_group(self, number: int) -> None:
        """To the process and all it started; of no effect when it is gone."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def end(self, grace_s: float) -> None:
        """SIGTERM to its group, and after `grace_s` SIGKILL; returns when it is dead."""
        self.signal_group(signal.SIGTERM)
        if not self._dies_within(grace_s):
            self.signal_group(signal.SIGKILL)
            self._dies_within(grace_s)

    def _dies_within(self, span_s: float) -> bool:
        deadline = time.monotonic() + span_s
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True
