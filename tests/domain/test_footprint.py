from typing import Any

import pytest
from published import FIGURES

from elias.domain.footprint import KNOWN_SHAPES, ModelShape, footprint
from elias_trainer.contract import Method, Objective, Precision, Recipe

DEEPSEEK = KNOWN_SHAPES["deepseek-ai/deepseek-coder-6.7b-instruct"]


@pytest.mark.parametrize(
    ("reference", "published_parameters"),
    [
        ("starter", 134_515_008),
        ("deepseek-ai/deepseek-coder-1.3b-instruct", 1_346_471_936),
        ("deepseek-ai/deepseek-coder-6.7b-instruct", 6_740_512_768),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_a_known_shape_has_the_parameters_its_makers_count(reference: str, published_parameters: int) -> None:
    assert KNOWN_SHAPES[reference].parameters == published_parameters


def test_a_shape_is_read_from_a_config_json() -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "vocab_size": 32256,
    }
    assert ModelShape.from_config(config) == DEEPSEEK


def test_qlora_of_deepseek_coder_fits_a_t4_and_full_fine_tuning_does_not() -> None:
    frugal = Recipe(method=Method.QLORA, batch_size=1, gradient_checkpointing=True)
    full = Recipe(method=Method.FULL, batch_size=1, gradient_checkpointing=True)
    usable_t4_bytes = 15 * 10**9
    assert footprint(DEEPSEEK, frugal, Precision.FP16).total < usable_t4_bytes
    assert footprint(DEEPSEEK, full, Precision.FP16).total > 6 * usable_t4_bytes


@pytest.mark.parametrize("more", [{"batch_size": 8}, {"sequence_length": 2048}, {"rank": 64}, {"method": Method.FULL}])
def test_asking_for_more_never_needs_less(more: dict[str, object]) -> None:
    plain = Recipe(method=Method.QLORA)
    larger = Recipe(**{"method": Method.QLORA, **more})  # type: ignore[arg-type]
    assert footprint(DEEPSEEK, larger, Precision.BF16).total > footprint(DEEPSEEK, plain, Precision.BF16).total


def test_checkpointing_activations_saves_most_of_them() -> None:
    held = footprint(DEEPSEEK, Recipe(), Precision.BF16).activations
    recomputed = footprint(DEEPSEEK, Recipe(gradient_checkpointing=True), Precision.BF16).activations
    assert recomputed < held / 5


@pytest.mark.parametrize(
    "figure", [f for f in FIGURES if f.peak_bytes and f.note != "compiled"], ids=lambda figure: figure.what
)
def test_a_published_peak_is_met_within_a_third_and_never_far_overstated(figure: Any) -> None:
    ratio = footprint(figure.shape, figure.recipe, Precision.BF16).total / figure.peak_bytes
    assert 0.66 < ratio < 1.1


def test_pairs_hold_twice_the_activations_of_plain_examples() -> None:
    plain, pairs = (
        footprint(DEEPSEEK, Recipe(objective=objective), Precision.BF16).activations for objective in Objective
    )
    assert pairs == 2 * plain
