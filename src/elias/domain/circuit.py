"""Room 3. A circuit breaker: after some errors in a row a place is left alone, and probed ever less often.

Closed lets everything pass; open lets nothing be planned there; half-open lets one probe pass, whose answer closes it
or opens it for twice as long. See Nygard, Release It!, 2nd ed. 2018, chapter 5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class CircuitRule:
    failures: int = 3
    """In a row; that many open it."""
    first: timedelta = timedelta(minutes=1)
    """From opening to the first probe; doubled by each probe that fails."""
    longest: timedelta = timedelta(minutes=30)
    probe: timedelta = timedelta(minutes=1)
    """A probe that nobody has heard of for so long was lost with its process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Circuit:
    failures: int = 0
    """In a row."""
    down_since: datetime | None = None
    """The first of these failures, once it is open; None is closed."""
    first_at: datetime | None = None
    """Of the failures in a row, the first."""
    probe_at: datetime | None = None
    is_probed: bool = False
    """Half-open: somebody asks just now."""
    probes: int = 0
    """That failed."""
    cause: str = ""

    def failed(self, why: str, now: datetime, rule: CircuitRule) -> Circuit:
        first_at, failures = self.first_at or now, self.failures + 1
        counted = replace(self, failures=failures, first_at=first_at, cause=why)
        if failures < rule.failures:
            return counted
        if self.down_since is None:
            return replace(counted, down_since=first_at, probe_at=now + rule.first, probes=0)
        if not self.is_probed:
            return counted  # something under way there could not be polled: that is no probe
        wait = min(rule.longest, rule.first * 2 ** min(self.probes + 1, 16))
        return replace(counted, probe_at=now + wait, is_probed=False, probes=self.probes + 1)

    def claimed(self, now: datetime, rule: CircuitRule) -> Circuit:
        """Half-open: whoever got it asks, the others wait for the answer."""
        return replace(self, probe_at=now + rule.probe, is_probed=True)

    def may_probe(self, now: datetime) -> bool:
        return self.down_since is not None and (self.probe_at is None or now >= self.probe_at)

    @property
    def words(self) -> str:
        """As a reason: since when, why, and when it is asked again."""
        since = f"{self.down_since:%Y-%m-%d %H:%M:%S}" if self.down_since else "?"
        again = f"{self.probe_at:%Y-%m-%d %H:%M:%S}" if self.probe_at else "?"
        return f"down since {since} UTC ({self.cause}), probed again at {again} UTC"
