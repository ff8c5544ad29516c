"""The step-time model: what it must never do, and how far it stands from what others measured."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import FIGURES

from elias.domain.accelerators import ACCELERATORS, CPU, UNKNOWN, Basis, find
from elias.domain.footprint import KNOWN_SHAPES
from elias.domain.speed import Estimate, Place, Sequences, flops, overheads, precision_on, step_parts, step_time
from elias_trainer.contract import Method, Objective, Precision, Recipe

DEEPSEEK = KNOWN_SHAPES["deepseek-ai/deepseek-coder-6.7b-instruct"]
A100 = Place(accelerator="NVIDIA A100-SXM4-80GB", precision=Precision.BF16)


SPEEDS = [figure for figure in FIGURES if figure.tokens_per_s]


@pytest.mark.parametrize("figure", SPEEDS, ids=lambda figure: figure.what)
def test_a_published_speed_lies_within_what_the_estimate_says(figure: Any) -> None:
    place = Place(accelerator=figure.gpu, precision=Precision.BF16)
    told = step_time(figure.shape, figure.recipe, place)
    recipe = figure.recipe
    published_s = recipe.accumulation * recipe.batch_size * recipe.sequence_length / figure.tokens_per_s
    assert told.low <= published_s <= told.high


def test_predicted_and_published_speeds_agree_within_a_quarter_in_the_middle() -> None:
    logs = []
    for figure in SPEEDS:
        recipe, place = figure.recipe, Place(accelerator=figure.gpu, precision=Precision.BF16)
        tokens = recipe.accumulation * recipe.batch_size * recipe.sequence_length
        predicted = tokens / step_parts(figure.shape, recipe, place).total
        logs.append(abs(math.log(predicted / figure.tokens_per_s)))
    assert sorted(logs)[len(logs) // 2] < math.log(1.25)


recipes = st.builds(
    Recipe,
    method=st.sampled_from(Method),
    objective=st.sampled_from(Objective),
    rank=st.sampled_from([1, 8, 64]),
    batch_size=st.integers(1, 64),
    accumulation=st.integers(1, 32),
    sequence_length=st.sampled_from([16, 128, 1024, 8192]),
    packing=st.booleans(),
    gradient_checkpointing=st.booleans(),
)
shapes = st.sampled_from(list(KNOWN_SHAPES.values()))
cards = st.sampled_from([row.name for row in (*ACCELERATORS, CPU, UNKNOWN)])


@st.composite
def places(draw: st.DrawFn) -> Place:
    name = draw(cards)
    return Place(accelerator=name, count=draw(st.integers(1, 8)), precision=precision_on(name, Recipe()))


@given(shapes, recipes, places(), st.sampled_from(["batch_size", "sequence_length", "accumulation"]))
def test_more_tokens_never_take_less_time(shape: Any, recipe: Recipe, place: Place, what: str) -> None:
    more = replace(recipe, **{what: getattr(recipe, what) * 2})
    assert step_time(shape, more, place).likely >= step_time(shape, recipe, place).likely * (1 - 1e-9)


@given(shapes, recipes, places())
def test_more_cards_are_not_slower_but_for_what_they_exchange(shape: Any, recipe: Recipe, place: Place) -> None:
    one, several = (step_parts(shape, recipe, replace(place, count=n)) for n in (1, place.count + 1))
    assert several.total - several.exchange <= one.total * (1 + 1e-9)


@given(shapes, recipes, places(), st.floats(1, 1e4), st.floats(1, 10))
def test_a_faster_card_is_not_slower(shape: Any, recipe: Recipe, place: Place, tflops: float, times: float) -> None:
    slow, fast = replace(place, tflops=tflops), replace(place, tflops=tflops * times)
    assert step_time(shape, recipe, fast).likely <= step_time(shape, recipe, slow).likely * (1 + 1e-9)


@given(shapes, recipes, places())
def test_recomputing_activations_and_quantizing_cost_time_never_save_it(
    shape: Any, recipe: Recipe, place: Place
) -> None:
    def seconds(**changes: Any) -> float:
        return step_time(shape, replace(recipe, **changes), place).likely

    assert seconds(gradient_checkpointing=True) >= seconds(gradient_checkpointing=False)
    assert seconds(method=Method.QLORA) >= seconds(method=Method.LORA)


@given(shapes, recipes, places())
def test_an_estimate_is_in_order_and_finite(shape: Any, recipe: Recipe, place: Place) -> None:
    told, other = step_time(shape, recipe, place), overheads(shape, recipe, place)
    for estimate in (told, other.start_up, other.checkpoint):
        assert 0 < estimate.low < estimate.likely < estimate.high < math.inf


def test_operations_a_token_are_those_of_the_textbook() -> None:
    batch = Sequences(count=1, width=1)
    plain = Recipe(method=Method.FULL, sequence_length=1, batch_size=1)
    weights = DEEPSEEK.linear_parameters + DEEPSEEK.vocabulary * DEEPSEEK.hidden
    assert flops(DEEPSEEK, plain, batch) == pytest.approx(6 * weights, rel=1e-3)
    lora = replace(plain, method=Method.LORA, target_modules=("q_proj",), rank=1)
    assert flops(DEEPSEEK, lora, batch) == pytest.approx(4 * weights, rel=1e-3)
    again = replace(plain, gradient_checkpointing=True)
    assert flops(DEEPSEEK, again, batch) == pytest.approx(6 * weights + 2 * DEEPSEEK.linear_parameters, rel=1e-3)


def test_a_second_card_is_of_no_use_to_a_single_micro_batch() -> None:
    recipe = Recipe(gradient_checkpointing=True)
    assert step_time(DEEPSEEK, recipe, replace(A100, count=2)).likely >= step_time(DEEPSEEK, recipe, A100).likely
    two = replace(recipe, accumulation=2)
    assert step_time(DEEPSEEK, two, replace(A100, count=2)).likely < step_time(DEEPSEEK, two, A100).likely * 0.6


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("NvidiaTeslaT4", "T4"),
        ("Tesla T4", "T4"),
        ("ml.g4dn.12xlarge", "T4"),
        ("ml.g5.2xlarge", "A10G"),
        ("NVIDIA L4", "L4"),
        ("ml.g6.xlarge", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("ml.g6e.2xlarge", "L40S"),
        ("ml.p3.2xlarge", "V100"),
        ("ml.p4de.24xlarge", "A100"),
        ("ml.p5.48xlarge", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 4060", "RTX 4060"),
        ("cpu", "CPU"),
        ("a card of tomorrow", "unknown"),
    ],
)
def test_a_card_is_known_by_any_of_its_names(name: str, row: str) -> None:
    assert find(name).name == row


def test_every_row_of_the_table_names_its_source_and_a_peak() -> None:
    for row in (*ACCELERATORS, CPU):
        assert row.source
        assert 0 < row.share < 1
        assert row.basis is not Basis.ASSUMED or row.source.startswith("assumed")


def test_what_nobody_measured_is_told_with_a_wider_range() -> None:
    recipe = Recipe(method=Method.QLORA, gradient_checkpointing=True)
    known, assumed, unknown = (
        step_time(DEEPSEEK, recipe, Place(accelerator=name, precision=precision_on(name, recipe))).factor
        for name in ("A100", "Tesla T4", "a card of tomorrow")
    )
    assert known < assumed < unknown


def test_a_t4_trains_in_half_precision_and_a_cpu_in_single() -> None:
    assert precision_on("NvidiaTeslaT4", Recipe()) is Precision.FP16
    assert precision_on("cpu", Recipe(precision=Precision.BF16)) is Precision.FP32
    assert precision_on("NVIDIA L4", Recipe()) is Precision.BF16


estimates = st.builds(Estimate.around, st.floats(1e-3, 1e6), st.floats(1.01, 20))


@given(estimates, st.floats(0.01, 0.98))
def test_nine_cases_of_ten_lie_between_low_and_high_and_a_surer_bound_is_later(
    estimate: Estimate, share: float
) -> None:
    assert estimate.quantile(0.05) == pytest.approx(estimate.low, rel=1e-4)
    assert estimate.quantile(0.5) == pytest.approx(estimate.likely)
    assert estimate.quantile(0.95) == pytest.approx(estimate.high, rel=1e-4)
    assert estimate.quantile(share) < estimate.quantile(share + 0.01)


def test_a_certain_estimate_stays_below_itself_at_any_probability() -> None:
    assert Estimate.around(10.0, 1.0).quantile(0.01) == Estimate.around(10.0, 1.0).quantile(0.99) == 10.0
