"""What the tests of session sources share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from elias.domain.label import Label
from elias.ports.source import SourceContext


class StoppedClock:
    def now(self) -> datetime:
        return datetime(2026, 11, 24, 12, tzinfo=UTC)

    def sleep(self, span: timedelta) -> None:
        raise AssertionError("a source has nothing to wait for")


@pytest.fixture
def context() -> SourceContext:
    return SourceContext(clock=StoppedClock(), label=Label.SHARED, stage=2)
