"""Which types can take a job: what fits, what it would cost on demand and on spot, and why the others cannot."""

import dataclasses
import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.instances import instance, table
from elias.adapters.backends.sagemaker.offers import how_it_fits, instance_offers, precision_on
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.adapters.backends.sagemaker.spot import History, spot_hourly
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.errors import ConfigError, InputError
from elias.ports.backend import BackendContext
from elias.units import Money
from elias_trainer.contract import BaseModel, Method, Precision, Recipe

CODER = "deepseek-ai/deepseek-coder-6.7b-instruct"


def need(reference: str = CODER, **recipe) -> Need:
    wanted = Recipe(max_steps=1000, gradient_checkpointing=True, **recipe)
    return Need(base=BaseModel(reference=reference), recipe=wanted, label=Label.PRIVATE, corpus_bytes=50_000_000)


@pytest.fixture
def offers(settings, account, home, watch):
    def ask(wanted: Need, **changed):
        set_to = replace(settings, **changed)
        context = BackendContext(name="sagemaker", node="attic", home=home, settings={}, clock=watch)
        return {o.variant: o for o in instance_offers(context, Clients(set_to)).offers(wanted)}

    return ask


def test_each_type_is_offered_on_demand_and_on_spot(offers):
    found = offers(need(method=Method.QLORA))
    gpu_types = [name for name, kind in table().instances.items() if kind.gpus]
    assert list(found) == [variant for name in gpu_types for variant in (name, f"{name} spot")]


def test_money_is_reserved_at_the_on_demand_price_also_for_spot(offers):
    found = offers(need(method=Method.QLORA))
    spot = found["ml.g5.xlarge spot"]
    assert spot.hourly == found["ml.g5.xlarge"].hourly == Money.usd("1.408")
    assert spot.likely_hourly < spot.hourly
    after = spot.hourly.for_hours(SageMakerSettings().grace + SageMakerSettings().upload)
    assert after < spot.once < after + Money.usd("0.20"), "and a month of the files in S3 and their way home"


def test_private_data_is_refused_before_anything_is_sent_where_no_pyrage_can_be_brought(offers, tmp_path, monkeypatch):
    told = tmp_path / "site" / "pyrage-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: pyrage\nVersion: 1.0\n")
    (told / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp310-abi3-macosx_11_0_arm64\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    private = need(method=Method.QLORA)
    assert "AWS's image has no pyrage" in offers(private)["ml.g5.xlarge"].refused
    assert offers(replace(private, label=Label.PUBLIC))["ml.g5.xlarge"].refused is None
    assert offers(private, image="an-image-of-ones-own")["ml.g5.xlarge"].refused is None
    (tmp_path / "pyrage-1.4.0-cp310-abi3-manylinux_2_17_x86_64.whl").touch()
    assert offers(private, wheels=str(tmp_path))["ml.g5.xlarge"].refused is None


def test_what_is_too_small_says_by_how_much_and_what_would_help(offers):
    refused = offers(need(method=Method.LORA))["ml.g4dn.xlarge"].refused
    assert offers(need(method=Method.LORA))["ml.g4dn.xlarge"].fits is False
    assert re.search(r"needs \d+\.\d GiB; T4 has 14\.\d, \d+\.\d too few: --method qlora", refused)


def test_what_does_not_fit_one_gpu_is_spread_over_several():
    wanted = need(method=Method.LORA)
    one, four = how_it_fits(instance("ml.g4dn.xlarge"), wanted), how_it_fits(instance("ml.g4dn.12xlarge"), wanted)
    assert one.why_not and not four.why_not
    assert four.is_split
    assert not how_it_fits(instance("ml.g6e.12xlarge"), wanted).is_split


def test_a_quota_of_zero_names_its_code_and_how_to_ask_for_more(offers, account):
    account.disk.configure(quotas={"ml.g5.2xlarge:spot": 0, "ml.g5.2xlarge": 2})
    found = offers(need(method=Method.QLORA))
    assert "L-CAEE7DB7" in found["ml.g5.2xlarge spot"].refused
    assert "request-service-quota-increase" in found["ml.g5.2xlarge spot"].refused
    assert found["ml.g5.2xlarge"].refused is None and found["ml.g5.2xlarge"].concurrency == 2


def test_a_quota_that_was_raised_meanwhile_counts_within_minutes(offers, account, watch):
    account.disk.configure(quotas={"ml.g5.2xlarge": 0})
    assert offers(need(method=Method.QLORA))["ml.g5.2xlarge"].refused
    account.disk.configure(quotas={"ml.g5.2xlarge": 1})
    watch.sleep(timedelta(minutes=11))
    assert offers(need(method=Method.QLORA))["ml.g5.2xlarge"].refused is None


def test_another_region_has_neither_the_types_nor_the_table(offers):
    found = offers(need(method=Method.QLORA), region="eu-west-1")
    assert all("nobody knows its price in eu-west-1" in offer.refused for offer in found.values())


def test_a_card_without_bfloat16_is_refused_only_where_bfloat16_was_asked_for(offers):
    auto, asked = need(method=Method.QLORA), need(method=Method.QLORA, precision=Precision.BF16)
    assert offers(auto)["ml.g4dn.xlarge"].refused is None
    assert "--precision auto" in offers(asked)["ml.g4dn.xlarge"].refused
    assert precision_on(instance("ml.g4dn.xlarge"), auto) is Precision.FP16


def test_the_images_cuda_rules_out_volta_unless_the_image_is_another(offers):
    assert "CUDA 13" in offers(need(method=Method.QLORA))["ml.p3.2xlarge"].refused
    assert offers(need(method=Method.QLORA), image="1.dkr.ecr/x:cu128")["ml.p3.2xlarge"].refused is None


@pytest.mark.parametrize(("spot", "refused"), [("never", "ml.g5.xlarge spot"), ("always", "ml.g5.xlarge")])
def test_only_one_kind_of_capacity_may_be_wanted(offers, spot, refused):
    found = offers(need(method=Method.QLORA), spot=spot)
    assert [v for v in ("ml.g5.xlarge", "ml.g5.xlarge spot") if found[v].refused] == [refused]


def test_an_instance_that_was_named_is_the_only_one(offers):
    assert list(offers(need(), instance="ml.g6e.xlarge")) == ["ml.g6e.xlarge", "ml.g6e.xlarge spot"]
    named = replace(need(), instance="ml.g5.xlarge")
    assert list(offers(named, instance="ml.g6e.xlarge")) == ["ml.g5.xlarge", "ml.g5.xlarge spot"]
    with pytest.raises(InputError, match="'moon'"):
        offers(replace(need(), instance="moon"))
    with pytest.raises(ConfigError, match="'moon'"):
        offers(need(), instance="moon")


def test_spot_that_is_interrupted_too_often_is_not_taken(offers, home):
    History(home).record("seen", hours=10, interruptions=2000)
    found = offers(need(method=Method.QLORA))
    assert "on demand is no dearer in expectation" in found["ml.g5.xlarge spot"].refused
    assert found["ml.g5.xlarge"].refused is None


def test_hours_and_cost_belong_together(offers):
    found = offers(need(method=Method.QLORA))["ml.g5.xlarge"]
    assert found.likely_cost == found.hourly.for_hours(found.likely_span) + found.once
    spot = offers(need(method=Method.QLORA))["ml.g5.xlarge spot"]
    assert spot.likely_span > found.likely_span
    assert spot.likely_cost < found.likely_cost


def test_a_base_of_unknown_size_is_offered_without_hours(offers):
    found = offers(need("somebody/unknown-3b"))["ml.g5.xlarge"]
    assert (found.refused, found.fits, found.likely_span, found.likely_cost) == (None, None, None, None)


def test_a_base_in_a_folder_is_read_for_its_size(tmp_path):
    shape = KNOWN_SHAPES[CODER]
    config = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "vocab_size": shape.vocabulary,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert how_it_fits(instance("ml.g4dn.xlarge"), need(str(tmp_path))).why_not


@given(
    reference=st.sampled_from(sorted(KNOWN_SHAPES)),
    kind=st.sampled_from([kind for kind in table().instances.values() if kind.gpus]),
    batch=st.sampled_from([1, 4, 32]),
    method=st.sampled_from(list(Method)),
)
def test_nothing_is_let_through_that_the_memory_model_says_is_too_large(reference, kind, batch, method):
    wanted = need(reference, batch_size=batch, method=method)
    fit = how_it_fits(kind, wanted)
    whole = footprint(KNOWN_SHAPES[reference], wanted.recipe, precision_on(kind, wanted)).total
    assert fit.why_not or fit.needs_bytes <= kind.gpu_memory_bytes
    if whole > kind.gpus * kind.gpu_memory_bytes:
        assert fit.why_not
    if whole <= kind.gpu_memory_bytes:
        assert not fit.why_not


def test_what_was_seen_outweighs_what_was_assumed(home):
    history = History(home)
    assumed = history.risk().interruptions_per_hour
    history.record("run-1-0001", hours=200, interruptions=1)
    history.record("run-1-0001", hours=200, interruptions=1)
    risk = history.risk()
    assert risk.seen_hours == 200
    assert risk.interruptions_per_hour < assumed
    assert "1 in 200.0 h" in risk.words


def test_a_spot_hour_is_rounded_up():
    assert spot_hourly(Money(1)) == Money(1)


def test_every_offer_can_be_told_apart_and_answered_as_json(offers):
    found = offers(need())
    assert all(dataclasses.asdict(offer)["variant"] == variant for variant, offer in found.items())
