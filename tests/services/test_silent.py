"""A place that does not answer: the others go on, and money is not spent in its stead before it is known to be down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.plan import Plan, PlannedSegment
from elias.errors import BackendError, ConfigError, EliasError, InputError, MissingPackage, VerificationError
from elias.services.plan import Ask, plan_segment
from elias.services.silent import NO_ANSWER, NOT_SET_UP, before_money, offers_of
from elias.units import FREE, Money
from elias_trainer.contract import TINY, BaseModel, Recipe

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NEED = Need(base=BaseModel(reference=TINY), recipe=Recipe(), label=Label.PUBLIC, corpus_bytes=1)
HERE = Offer(
    backend="here",
    accelerator="cpu",
    accelerator_count=1,
    memory_bytes=2**33,
    tflops=None,
    hourly=FREE,
    longest=None,
    left=None,
)
HOUR = timedelta(hours=1)
RENTED = replace(HERE, backend="rented", hourly=Money.usd(2))


class Open:
    def __init__(self, offer: Offer) -> None:
        self.offer = offer

    def offers(self, need: Need) -> Sequence[Offer]:
        return [self.offer]


class Failing:
    def __init__(self, error: EliasError) -> None:
        self.error = error

    def offers(self, need: Need) -> Sequence[Offer]:
        raise self.error


class Silent:
    def offers(self, need: Need) -> Sequence[Offer]:
        raise BackendError("no route to it", fix="look at the network")


def found(**places: object) -> list[Offer]:
    return [offer for offer, _ in offers_of(places, NEED, NOW)]  # type: ignore[arg-type]


def test_the_others_are_asked_all_the_same():
    silent, here = found(away=Silent(), here=Open(HERE))
    assert here is HERE and (silent.backend, silent.accelerator) == ("away", NO_ANSWER)
    assert "no route to it" in (silent.refused or "")
    plan = plan_segment(Ask(label=Label.PUBLIC, now=NOW), [silent, here])
    assert before_money(plan, [silent, here]) is plan and plan.segments[0].offer is HERE


@pytest.mark.parametrize("kind", [ConfigError, MissingPackage, VerificationError])
def test_one_that_is_not_set_up_is_left_out_with_what_to_do_and_money_does_not_wait_for_it(kind: type[EliasError]):
    error = kind("nobody has joined", fix="elias worker token")
    unready, rented = found(away=Failing(error), rented=Open(RENTED))
    assert (unready.accelerator, unready.refused) == (NOT_SET_UP, "nobody has joined (fix: elias worker token)")
    plan = plan_segment(Ask(label=Label.PUBLIC, now=NOW, span=HOUR, budget_left=Money.usd(9)), [unready, rented])
    assert before_money(plan, [unready, rented]) is plan and plan.segments[0].offer is RENTED
    with pytest.raises(kind, match="nobody has joined"):
        found(away=Failing(error))


def test_what_no_place_could_ever_do_is_not_left_out():
    typo = InputError("nothing is known here of the instance type 'moon'", fix="use one of: …")
    with pytest.raises(InputError, match="moon"):
        found(away=Failing(typo), here=Open(HERE))


def test_one_that_is_alone_says_so_itself():
    with pytest.raises(BackendError, match="no route"):
        found(away=Silent())


def test_where_none_answers_it_is_asked_again_in_a_minute():
    offers = found(away=Silent(), gone=Silent())
    plan = plan_segment(Ask(label=Label.PUBLIC, now=NOW), offers)
    assert plan.segments == () and plan.wait_until == NOW + timedelta(minutes=1)


def test_money_waits_while_a_place_has_only_just_fallen_silent():
    offers = found(away=Silent(), rented=Open(RENTED))
    paid = Plan(segments=(PlannedSegment(offer=RENTED, starts_at=NOW, span=timedelta(hours=1)),))
    waits = before_money(paid, offers)
    assert waits.segments == () and waits.wait_until == NOW + timedelta(minutes=1)
    assert "before money is spent on rented, away is asked again" in (waits.reason or "")
    assert before_money(paid, [RENTED]) is paid


def test_one_that_still_refuses_when_that_should_have_passed_is_asked_again_after_a_pause():
    until = {"past": NOW - timedelta(hours=1), "later": NOW + timedelta(hours=1)}
    places = {name: Open(replace(HERE, refused="held", refused_until=at)) for name, at in until.items()}
    [past, later] = [offer for offer, _ in offers_of(places, NEED, NOW)]
    assert past.refused and NOW < past.refused_until < later.refused_until == until["later"]
