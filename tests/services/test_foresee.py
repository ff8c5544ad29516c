"""What a run has learned of an offer itself is seen with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from elias.domain.run import Segment, SegmentFailure, SegmentState
from elias.services.foresee import NO_QUOTA_WAIT, refused_of_late
from elias_trainer.contract import FailureKind
from tests.services.estimate.conftest import an_offer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SPOT = an_offer(backend="aws", variant="g5 spot")


@pytest.mark.parametrize(
    ("backend", "offer", "kind", "later", "is_refused"),
    [
        ("aws", "g5 spot", FailureKind.QUOTA, timedelta(minutes=59), True),
        ("aws", "g5 spot", FailureKind.QUOTA, NO_QUOTA_WAIT, False),
        ("aws", "g5", FailureKind.QUOTA, timedelta(minutes=1), False),
        ("aws", None, FailureKind.QUOTA, timedelta(minutes=1), False),
        ("local", "g5 spot", FailureKind.QUOTA, timedelta(minutes=1), False),
        ("aws", "g5 spot", FailureKind.PREEMPTED, timedelta(minutes=1), False),
    ],
)
def test_for_an_hour_an_offer_without_quota_is_left_alone_and_no_other(backend, offer, kind, later, is_refused):
    failure = SegmentFailure(kind=kind, message=f"{kind} happened", fix="mend it")
    failed = Segment(
        run="r", number=1, backend=backend, offer=offer, state=SegmentState.FAILED, ended_at=NOW, failure=failure
    )
    found = refused_of_late(SPOT, [failed], NOW + later)
    assert bool(found.refused) is is_refused
    assert found.refused_until == (NOW + NO_QUOTA_WAIT if is_refused else None)
    if is_refused:
        assert failure.message in (found.refused or "")
