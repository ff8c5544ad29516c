"""When to stop: a signal, the deadline, or a lease that nobody renews. Standard library only.

Parameters change only inside `optimizer.step()`, and every micro-batch draws its randomness from (seed, step, number)
alone, so a step in flight can be abandoned at any point of its forward and backward pass and be done again later,
to the bit. That is how a step of many seconds is left within one.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

_POLL_S = 0.2
_AGAIN_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Abandoned(BaseException):
    """The step or the loading in flight is given up. Not an Exception, so that no library swallows it."""


class Stop:
    """`reason` turns from None to `signal`, `deadline` or `lease`, once, seen by a thread of its own.

    The thread matters: Python runs a signal handler only between two bytecodes of the main thread, and a backward
    pass is one long call. The handler's wake-up byte reaches the thread at once.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.started = time.monotonic()
        self._deadline: float | None = None
        self._lease: _LeaseFile | None = None
        self._is_abandonable = False
        self._is_armed = False
        self._ended = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="stopping", daemon=True)
        self._before: list[tuple[int, object]] = []

    def __enter__(self) -> Stop:
        self._before = [(number, signal.signal(number, self._on_signal)) for number in _SIGNALS]
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        signal.set_wakeup_fd(-1)
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal itself returned
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def limit(self, seconds: float | None) -> None:
        """Stop this many seconds after the start; called again as the time to keep back becomes known."""
        self._deadline = None if seconds is None else self.started + seconds
        if reason := self._run_out():
            self._stop(reason)
            self.check()

    def hold(self, lease: Path, seconds: float) -> None:
        self._lease = _LeaseFile(lease, seconds)

    def check(self) -> None:
        """Raises Abandoned once there is a reason. Called from hooks all through a step."""
        if self.reason is not None and self._is_abandonable and self._is_armed:
            self._is_armed = False
            raise Abandoned

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """Inside, the work in flight may be given up; outside, a signal only sets `reason`."""
        self._is_armed = self._is_abandonable = True
        try:
            self.check()
            yield
        finally:
            self._is_abandonable = False

    def settle(self) -> None:
        """Called first wherever Abandoned is caught: it may have been raised on the very way out of `abandonable`."""
        self._is_abandonable = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop("signal")
        self.check()

    def _stop(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason

    def _watch(self) -> None:
        while not self._ended.is_set() and self.reason is None:
            ready, _, _ = select.select([self._wake_read], [], [], _POLL_S)
            if ready and any(number in _SIGNALS for number in os.read(self._wake_read, 64)):
                self._stop("signal")
            elif reason := self._run_out():
                self._stop(reason)
                # as if a signal had come: loading, which calls no hooks, is left in the same way
                _thread.interrupt_main(signal.SIGTERM)
        while not self._ended.wait(_AGAIN_S):
            if self._is_abandonable and not self._is_armed:
                # Some library caught it, as some do while they are imported; it is told once more.
                self._is_armed = True
                _thread.interrupt_main(signal.SIGTERM)

    def _run_out(self) -> str | None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "deadline"
        if self._lease is not None and self._lease.has_lapsed():
            return "lease"
        return None


class _LeaseFile:
    """Lapses when its modification time stands still for `seconds` of this process's own time.

    Two clocks are never compared: neither a step of the clock nor a laptop's sleep ends a lease.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._seen: int | None = None
        self._since = time.monotonic()

    def has_lapsed(self) -> bool:
        with suppress(FileNotFoundError):
            touched = self._path.stat().st_mtime_ns
            if touched != self._seen:
                self._seen, self._since = touched, time.monotonic()
        return time.monotonic() - self._since > self._seconds
