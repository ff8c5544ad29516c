"""Which workflows hold a thread now, and the signal that they should let go."""

from __future__ import annotations

import threading
from collections import deque

from elias.errors import WorldError


class Stopping(BaseException):
    """Unwinds a workflow at `stop`. Not an Exception: nobody's handler catches it, and DBOS records no end."""


class AtWork:
    """Counts them; each asks it, between two steps, whether to go on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._stopping = threading.Event()
        self.ended: deque[str] = deque(maxlen=100)
        """The ids of those that came to their own end, the latest hundred."""

    def one(self, workflow_id: str) -> _One:
        return _One(self, workflow_id)

    def entered(self, workflow_id: str) -> None:
        with self._changed:
            self._count += 1

    def left(self, workflow_id: str, *, is_end: bool) -> None:
        with self._changed:
            self._count -= 1
            if is_end:
                self.ended.append(workflow_id)
            self._changed.notify_all()

    def go_on(self) -> None:
        """Raises Stopping once `stop` was called."""
        if self._stopping.is_set():
            raise Stopping

    def nap(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopping

    def stop(self, within_s: float) -> None:
        self._stopping.set()
        with self._changed:
            if not self._changed.wait_for(lambda: self._count == 0, timeout=within_s):
                raise WorldError(
                    f"{self._count} steps did not end within {within_s:.0f} s",
                    kept="all finished steps; the rest goes on at the next start",
                    fix="end this process: kill -9 is safe",
                )


class _One:
    """A workflow's time on its thread."""

    def __init__(self, at_work: AtWork, workflow_id: str) -> None:
        self._at_work = at_work
        self._workflow_id = workflow_id

    def __enter__(self) -> None:
        self._at_work.entered(self._workflow_id)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        is_end = kind is None or issubclass(kind, Exception)
        self._at_work.left(self._workflow_id, is_end=is_end)
