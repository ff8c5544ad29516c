"""Two T4s, as far as a machine without any shows them: when a model is split, and float16 with loss scaling."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from elias.adapters.backends.kaggle.sender import T4_BYTES
from elias.domain.footprint import KNOWN_SHAPES, ModelShape, footprint
from elias_trainer import loading
from elias_trainer.carry import _command
from elias_trainer.contract import Limits, Method, Objective, Precision, Recipe
from elias_trainer.device import Device, exceeds_one_device
from tests.trainer.conftest import Place
from tests.trainer.test_segments import follow

MakePlace = Callable[..., Place]
T4 = Device(name="Tesla T4", count=1, torch_device="cuda:0", precision=Precision.FP16)
T4_FREE = 15_500_000_000
"""Of its 16 GB, what is left beside the driver; no T4 was asked."""


@pytest.fixture
def one_t4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=0: (T4_FREE, T4_FREE))


def config_of(shape: ModelShape) -> dict[str, int]:
    """The numbers of a config.json."""
    return {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied_embeddings,
    }


def is_split(shape: ModelShape, recipe: Recipe) -> bool:
    return exceeds_one_device(T4, recipe, shape.parameters, config_of(shape))


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("method", [Method.LORA, Method.QLORA])
@pytest.mark.parametrize("reference", list(KNOWN_SHAPES))
def test_what_the_footprint_says_is_too_much_for_one_t4_is_split_over_two(
    reference: str, method: Method, objective: Objective, checkpointing: bool, one_t4: None
) -> None:
    for batch_size in (1, 2, 4, 8):
        for sequence_length in (256, 512, 1024, 2048, 4096):
            recipe = Recipe(
                method=method,
                objective=objective,
                batch_size=batch_size,
                sequence_length=sequence_length,
                gradient_checkpointing=checkpointing,
            )
            if footprint(KNOWN_SHAPES[reference], recipe, Precision.FP16).total > T4_BYTES:
                assert is_split(KNOWN_SHAPES[reference], recipe), (batch_size, sequence_length)


def test_what_fits_one_t4_with_room_to_spare_is_not_split(one_t4: None) -> None:
    small = KNOWN_SHAPES["starter"]
    large = KNOWN_SHAPES["deepseek-ai/deepseek-coder-6.7b-instruct"]
    assert not is_split(small, Recipe(batch_size=2, sequence_length=512))
    assert not is_split(large, Recipe(method=Method.QLORA, gradient_checkpointing=True))
    assert is_split(large, Recipe(method=Method.LORA, batch_size=1, gradient_checkpointing=True))


def test_a_base_whose_config_speaks_other_words_is_judged_by_its_weights(one_t4: None) -> None:
    assert exceeds_one_device(T4, Recipe(), 8_000_000_000, {"n_embd": 4096})
    assert not exceeds_one_device(T4, Recipe(), 1_000_000_000, {"n_embd": 1600})


def test_more_than_one_gpu_starts_a_trainer_on_each() -> None:
    job, out = Path("/work/in/job.json"), Path("/work/out")
    one, two = _command(job, out, 1), _command(job, out, 2)
    assert one[:2] == [sys.executable, "-I"]
    assert two[:5] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    assert two[5:] == one[2:]


@pytest.fixture
def in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The T4's path on the CPU, which by itself would train in float32."""
    device = Device(name="cpu", count=1, torch_device="cpu", precision=Precision.FP16)
    monkeypatch.setattr(loading, "find_device", lambda recipe, *, world_size, local_rank: device)


def state_of(place: Place) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    folder = place.out / place.result.checkpoint.path
    return json.loads((folder / "state.json").read_bytes()), load_file(folder / "state.safetensors")


def test_float16_keeps_its_loss_scale_and_float32_adapters_from_segment_to_segment(
    place: MakePlace, in_float16: None
) -> None:
    recipe = {"max_steps": 4, "dropout": 0.1}
    whole = place("whole", **recipe)
    assert whole.run() == 0
    first = place("first", limits=Limits(stop_at_step=2), **recipe)
    assert first.run() == 0
    state, tensors = state_of(first)
    assert first.result.precision == "fp16"
    assert state["scaler"] and state["scaler"]["scale"] == 2.0**8 and state["scaler"]["_growth_tracker"] == 2
    assert {tensor.dtype for name, tensor in tensors.items() if "parameter/" in name} == {torch.float32}
    second = follow(place, first, "second", **recipe)
    assert second.run() == 0
    assert second.adapter() == whole.adapter()
    assert first.steps() | second.steps() == whole.steps()


def test_float16_is_near_float32(place: MakePlace, request: pytest.FixtureRequest) -> None:
    exact = place("exact", max_steps=4, dropout=0.0)
    assert exact.run() == 0
    request.getfixturevalue("in_float16")
    half = place("half", max_steps=4, dropout=0.0)
    assert half.run() == 0
    assert half.steps() == pytest.approx(exact.steps(), rel=2e-3)


def test_a_step_that_overflows_float16_is_left_out_and_the_scale_is_lowered(
    place: MakePlace, in_float16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_FIRST_LOSS_SCALE", 2.0**24)
    made = place(max_steps=6, limits=Limits(stop_at_step=3))
    assert made.run() == 0
    state, tensors = state_of(made)
    assert state["scaler"]["scale"] < 2.0**24
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
