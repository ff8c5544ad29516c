"""Every noun survives being kept, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elias.adapters.stores.documents import from_document, to_document
from elias.domain.artifact import Artifact
from elias.domain.corpus import Corpus
from elias.domain.deployment import Deployment
from elias.domain.run import Run, Segment
from elias.domain.session import Evidence, Session
from elias.domain.verdict import Verdict
from elias.testing.nouns import a_run
from elias.units import Money
from elias_trainer.contract import Digest

st.register_type_strategy(Money, st.integers(0, 2**62).map(Money))
st.register_type_strategy(Digest, st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256:" + raw.hex())))
st.register_type_strategy(datetime, st.datetimes(timezones=st.just(UTC)))
st.register_type_strategy(timedelta, st.timedeltas())
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(Evidence, st.builds(Evidence, kind=st.text(), passed=st.just(1), total=st.integers(1, 9)))


@pytest.mark.parametrize("kind", [Session, Corpus, Run, Segment, Artifact, Verdict, Deployment])
def test_a_noun_comes_back_equal(kind: type) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.from_type(kind))
    def comes_back(noun: Any) -> None:
        document = to_document(noun)
        assert from_document(kind, document) == noun
        assert to_document(from_document(kind, document)) == document
        assert document.isascii()
        assert "\x00" not in document

    comes_back()


def test_an_instant_in_another_zone_is_kept_in_utc() -> None:
    elsewhere = datetime.fromisoformat("2026-11-24T17:30:00+05:30")
    document = to_document({"at": elsewhere})
    assert document == '{"at":"2026-11-24T12:00:00Z"}'


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        to_document(datetime(2026, 1, 1))  # noqa: DTZ001  # the point of the test


def test_a_field_that_was_added_later_takes_its_default() -> None:
    older = to_document(a_run()).replace('"node":null,', "")
    assert from_document(Run, older) == a_run()


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"node":', '"knot":', "Run: unknown field 'knot'"),
        ('"strategy":"local"', '"strategy":7', "Run.strategy"),
        ('"rank":16', '"rank":true', "Run.recipe.rank"),
        ('"id":"run-1",', "", "id"),
    ],
)
def test_what_does_not_belong_is_named(old: str, new: str, where: str) -> None:
    document = to_document(a_run())
    assert old in document
    with pytest.raises(ValueError, match=where):
        from_document(Run, document.replace(old, new))
