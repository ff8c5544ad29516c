"""All places asked at once: one that hangs, lacks something or breaks never takes the list with it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.errors import ConfigError
from elias.services.estimate import Known
from elias.services.offers import Answer, ask_all, rows_of, strictest_allowed
from elias.services.workload import Work, work_unknown
from elias.units import FREE, Money
from elias_trainer.contract import BaseModel, Recipe

NEED = Need(base=BaseModel(reference="starter"), recipe=Recipe(), label=Label.PRIVATE, corpus_bytes=1)
OFFER = Offer(
    backend="place", accelerator="NVIDIA L4", accelerator_count=1, memory_bytes=1, tflops=None, hourly=FREE,
    longest=None, left=None, needs_encryption=True, seals_private=True,
)  # fmt: skip
KNOWN = Known(work=Work(step_total=100, sequences=work_unknown(NEED.recipe).sequences, factor=1.2))


def place(offers):
    return lambda: SimpleNamespace(offers=lambda need: [OFFER] if offers is None else offers(need))


def test_every_place_gets_its_own_answer_however_the_others_fare():
    def lacks():
        raise ConfigError("no key", fix="make one")

    def breaks(need):
        raise TypeError("offers() is not for sale")

    let_go = threading.Event()
    places = {
        "hangs": place(lambda need: let_go.wait() and []),
        "lacks": lacks,
        "breaks": place(breaks),
        "empty": place(lambda need: []),
        "works": place(None),
    }
    began = time.monotonic()
    answers = {answer.backend: answer for answer in ask_all(places, NEED, timedelta(seconds=5))}
    let_go.set()
    assert time.monotonic() - began < 300
    assert list(answers) == list(places)
    assert answers["works"].offers == (OFFER,)
    assert "did not answer" in answers["hangs"].error.what
    assert answers["lacks"].error.fix == "make one"
    assert "TypeError" in answers["breaks"].error.what
    shown = [rows_of(answer, NEED, KNOWN) for answer in answers.values()]
    assert [bool(one.rows) for one in shown] == [False, False, False, False, True]
    assert all(one.not_ready for one in shown if not one.rows)


@pytest.mark.parametrize(
    ("needs_encryption", "seals", "label"),
    [(False, False, Label.SECRET), (True, True, Label.PRIVATE), (True, False, Label.SHARED)],
)
def test_an_offer_says_how_strict_a_label_it_may_take(needs_encryption, seals, label):
    assert strictest_allowed(replace(OFFER, needs_encryption=needs_encryption, seals_private=seals)) is label


@given(st.sampled_from(Label), st.booleans(), st.booleans())
def test_no_offer_is_shown_as_open_to_data_that_may_not_go_there(label, needs_encryption, seals):
    offer = replace(OFFER, needs_encryption=needs_encryption, seals_private=seals)
    (row,) = rows_of(Answer(backend="place", offers=(offer,)), replace(NEED, label=label), KNOWN).rows
    may_go = not needs_encryption or (label is not Label.SECRET and (seals or label is not Label.PRIVATE))
    assert (row.refused is None) is may_go


def test_offers_that_take_the_run_come_first_and_the_cheapest_of_them_in_front():
    dear, cheap = (replace(OFFER, variant=name, hourly=Money.usd(price)) for name, price in (("a", 4), ("b", 1)))
    refused = replace(OFFER, variant="c", refused="too small")
    rows = rows_of(Answer(backend="place", offers=(refused, dear, cheap, OFFER)), NEED, KNOWN).rows
    assert [row.offer.variant for row in rows] == ["", "b", "a", "c"]


def test_short_sessions_start_up_more_often():
    short = replace(OFFER, longest=timedelta(minutes=4), accelerator="cpu")
    once, often = (
        rows_of(Answer(backend="place", offers=(offer,)), NEED, KNOWN).rows[0].seconds
        for offer in (replace(short, longest=None), short)
    )
    assert once is not None
    assert often is not None
    assert often.likely > once.likely + 60


def test_a_spot_price_is_what_its_hours_are_reckoned_with():
    plain = replace(OFFER, hourly=Money.usd(4))
    spot = replace(plain, variant="spot", likely_hourly=Money.usd(1), once=Money.usd("0.01"))
    first, second = rows_of(Answer(backend="place", offers=(plain, spot)), NEED, KNOWN).rows
    assert first.offer.variant == "spot"
    assert second.cost is not None
    assert first.cost is not None
    assert first.cost < second.cost
