"""The loop on `tiny`: what it learns, that it repeats itself to the byte, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from safetensors import safe_open

from elias.testing.ports import free_port
from elias_trainer.contract import Limits, Method, Objective, Outcome, Precision, file_digests
from tests.trainer.conftest import Forge, Place, pairs

MakePlace = Callable[..., Place]


def test_the_same_job_gives_the_same_adapter_to_the_byte(place: MakePlace, forge: Forge) -> None:
    here, there = place("here", max_steps=4), place("there", max_steps=4)
    assert here.run() == 0
    assert forge.start(there).wait() == 0
    assert here.adapter() == there.adapter()
    assert here.steps() == there.steps()


def test_another_seed_gives_another_adapter(place: MakePlace) -> None:
    one, other = place("one", max_steps=2), place("other", max_steps=2, seed=8)
    assert (one.run(), other.run()) == (0, 0)
    assert one.adapter() != other.adapter()


def test_the_loss_falls(place: MakePlace) -> None:
    made = place(max_steps=30, learning_rate=1e-2, dropout=0.0, warmup_share=0.0)
    assert made.run() == 0
    assert made.result.last_loss < made.result.first_loss - 0.5


def test_the_result_and_the_events_tell_the_same_story(place: MakePlace) -> None:
    made = place(epochs=1.5, accumulation=3, expected_accelerator="Tesla T4")
    assert made.run() == 0
    result, events = made.result, made.events
    # 20 examples in 10 micro-batches are 4 steps an epoch, the last of one micro-batch; 1.5 epochs are 6 steps.
    assert (result.outcome, result.reason, result.step, result.step_total) == (Outcome.DONE, "epochs", 6, 6)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [e["phase"] for e in events if e["kind"] == "loaded"] == ["base", "corpus"]
    started = next(event for event in events if event["kind"] == "started")
    assert (started["accelerator"], started["matches"]) == ("cpu", False)
    assert any("Tesla T4 was planned" in event["message"] for event in events if event["kind"] == "warning")
    steps = [event for event in events if event["kind"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["epoch"] == 1.5
    assert steps[-1]["eta_s"] == 0
    assert sum(step["tokens"] for step in steps) == result.tokens
    assert steps[-1]["loss"] == result.last_loss
    assert all(step["memory_bytes"] > 0 and step["tokens_per_s"] > 0 for step in steps)
    assert events[-1] | {"at": ""} == events[-1] | {"at": "", "outcome": "done", "reason": "epochs", "step": 6}
    assert result.precision == "fp32"
    assert result.outputs == {f"adapter/{name}": d for name, d in file_digests(made.out / "adapter").items()}


def test_the_adapter_names_its_base_and_nothing_of_this_machine(place: MakePlace) -> None:
    made = place(max_steps=1)
    assert made.run() == 0
    assert sorted(made.adapter()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads(made.adapter()["adapter_config.json"])
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(made.job.recipe.target_modules)
    assert "peft_version" not in config
    assert str(made.cache) not in made.adapter()["adapter_config.json"].decode()


def test_accumulated_micro_batches_are_one_large_batch(place: MakePlace) -> None:
    same = {"max_steps": 2, "dropout": 0.0, "learning_rate": 1e-3}
    # One order for both: with the whole corpus in a step, only rounding can differ.
    split, whole = place("split", batch_size=4, accumulation=5, **same), place("whole", batch_size=20, **same)
    assert (split.run(), whole.run()) == (0, 0)
    assert split.steps() == pytest.approx(whole.steps(), rel=1e-6)


def test_qlora_trains_on_the_cpu(place: MakePlace) -> None:
    made = place(method=Method.QLORA, max_steps=8, learning_rate=1e-2, dropout=0.0, warmup_share=0.0)
    assert made.run() == 0
    assert made.result.last_loss < made.result.first_loss
    assert sorted(made.adapter()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_full_fine_tuning_writes_a_model_that_is_a_base_again(place: MakePlace) -> None:
    made = place("first", method=Method.FULL, max_steps=2)
    assert made.run() == 0
    names = sorted(made.adapter())
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(names)
    assert "transformers_version" not in json.loads(made.adapter()["config.json"])
    base = type(made.job.base)(reference=str(made.out / "adapter"))
    again = place("again", base=base, method=Method.FULL, max_steps=1)
    assert again.run() == 0
    twin = place("twin", method=Method.FULL, max_steps=2)
    assert twin.run() == 0
    assert made.adapter() == twin.adapter()


def test_preference_pairs_train_with_dpo(place: MakePlace) -> None:
    made = place(lines=pairs(12), objective=Objective.DPO, max_steps=10, learning_rate=1e-2, dropout=0.0)
    assert made.run() == 0
    # Before the first step the model is its own reference: the loss is ln 2.
    assert made.result.first_loss == pytest.approx(0.6931, abs=1e-3)
    assert made.result.last_loss < made.result.first_loss


def test_gradient_checkpointing_changes_memory_and_nothing_else(place: MakePlace) -> None:
    plain, frugal = place("plain", max_steps=3), place("frugal", max_steps=3, gradient_checkpointing=True)
    assert (plain.run(), frugal.run()) == (0, 0)
    assert frugal.steps() == pytest.approx(plain.steps(), rel=1e-6)


def test_a_cpu_says_that_it_trains_in_float32(place: MakePlace) -> None:
    made = place(max_steps=1, precision=Precision.BF16)
    assert made.run() == 0
    assert made.result.precision == "fp32"
    assert any("bf16 was asked for" in event.get("message", "") for event in made.events)


def test_two_processes_train_as_one_does(place: MakePlace, forge: Forge) -> None:
    recipe = {"max_steps": 4, "accumulation": 3, "limits": Limits(checkpoint_every_s=0)}
    alone, group = place("alone", **recipe), place("group", **recipe)
    assert alone.run() == 0
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = [forge.start(group, RANK=str(rank), LOCAL_RANK=str(rank), **common) for rank in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert group.steps() == pytest.approx(alone.steps(), rel=1e-5)
    assert group.result.tokens == alone.result.tokens
    assert [event["seq"] for event in group.events] == list(range(len(group.events)))
    _assert_close(alone, group)


def _assert_close(one: Place, other: Place) -> None:
    paths = [made.out / "adapter" / "adapter_model.safetensors" for made in (one, other)]
    with safe_open(paths[0], "pt") as left, safe_open(paths[1], "pt") as right:
        assert left.keys() == right.keys()
        assert all(left.get_tensor(name).allclose(right.get_tensor(name), atol=1e-5) for name in left.keys())  # noqa: SIM118
