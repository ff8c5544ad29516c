"""The machine's own clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Wall time in UTC, and sleep that holds its thread."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, span: timedelta) -> None:
        time.sleep(max(0.0, span.total_seconds()))
