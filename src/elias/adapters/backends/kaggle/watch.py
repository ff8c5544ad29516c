"""When Kaggle is asked after a segment again: soon after something has changed, ever more seldom while nothing does.

A session's log stays open while it runs, so that its end and what the job says of its machine show there at once, and
the question of how it is can wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from elias.adapters.backends.kaggle.ledger import Entry
from elias.adapters.backends.kaggle.live import LiveLog
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.domain.run import SegmentState
from elias.ports.backend import Status

SLOWER = 1.5
"""Each answer that says nothing new makes the next wait so many times longer."""
WITH_LOG = 9.0
"""The longest wait while its log is open, in `poll_every`."""
FIRST = 0.125
"""The first wait before a session and after its log's end, in `poll_every`: Kaggle is often ready within seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    at: float
    """On the monotonic clock."""
    wait_s: float
    status: Status
    unwanted: bool
    news: tuple[int, bool]
    """What its log had shown by then."""


class Watch:
    """What this process has heard of segments that have not ended; nothing that another could not ask again."""

    def __init__(
        self,
        settings: KaggleSettings,
        open_log: Callable[[str], Iterable[str]],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poll_s = settings.poll_every.total_seconds()
        self._retry_s = settings.retry_wait.total_seconds()
        self._open_log = open_log
        self._seconds = seconds
        self._asked: dict[str, _Asked] = {}
        self._logs: dict[str, LiveLog] = {}
        """By kernel."""

    def known(self, entry: Entry) -> Status | None:
        """The last answer; None when it is time to ask."""
        asked = self._asked.get(entry.key)
        if asked is None or asked.unwanted != entry.unwanted or asked.news != self.news(entry):
            return None
        return asked.status if self._seconds() - asked.at < asked.wait_s else None

    def heard(self, entry: Entry, status: Status, news: tuple[int, bool]) -> None:
        """An answer, asked for when the log had shown `news`."""
        before, log = self._asked.get(entry.key), self._logs.get(entry.kernel)
        has_begun = status.state is not SegmentState.PENDING and not news[1]
        if before is None or before.status != status or before.news != news:
            wait_s = self._poll_s * (1.0 if has_begun else FIRST)
        else:
            most = self._poll_s * (WITH_LOG if has_begun and log is not None and log.is_live else 1.0)
            wait_s = min(before.wait_s * SLOWER, most)
        self._asked[entry.key] = _Asked(
            at=self._seconds(), wait_s=wait_s, status=status, unwanted=entry.unwanted, news=news
        )

    def news(self, entry: Entry) -> tuple[int, bool]:
        """How many notes its log has shown, and whether it came to its end."""
        log = self._logs.get(entry.kernel)
        return (len(log.notes), log.has_ended) if log else (0, False)

    def log(self, entry: Entry) -> LiveLog | None:
        """Of its session, which is read from now on; None before it was pushed and after its end."""
        if entry.pushed_at is None or entry.ended is not None:
            return None
        if entry.kernel not in self._logs:
            self._logs[entry.kernel] = LiveLog(lambda: self._open_log(entry.kernel), self._retry_s)
        log = self._logs[entry.kernel]
        log.watch()
        return log

    def may_have_log(self, entry: Entry) -> bool:
        """False while the session waits in Kaggle's queue, as far as this process knows."""
        asked = self._asked.get(entry.key)
        return asked is None or asked.status.state is not SegmentState.PENDING

    def drop(self, entry: Entry) -> None:
        self._asked.pop(entry.key, None)
        if log := self._logs.pop(entry.kernel, None):
            log.stop()
