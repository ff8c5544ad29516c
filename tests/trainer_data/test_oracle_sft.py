"""TRL is the oracle: its SFTTrainer and our loss see the same examples and the same weights, step after step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from peft import PeftModel
from trl import SFTConfig, SFTTrainer

from elias_trainer.contract import Recipe
from elias_trainer.examples import collate, read_examples

LENGTH = 96


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_sft_losses_and_gradients_are_those_of_trl(
    packing: bool,
    tiny_lora: Callable[[], PeftModel],
    tokenizer: Any,
    corpus: Any,
    chat: Any,
    oracle_settings: Any,
    same_training: Any,
) -> None:
    lines = [chat(f"write the body of add_{n}" * (n % 3 + 1), f"return {n} + right" * (n % 4 + 1)) for n in range(7)]
    prompts = [{"prompt": line["messages"][:-1], "completion": line["messages"][-1:]} for line in lines]
    trainer = SFTTrainer(
        model=tiny_lora(),
        args=SFTConfig(**oracle_settings, per_device_train_batch_size=7, max_length=LENGTH, packing=packing),
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer,
    )
    recipe = Recipe(sequence_length=LENGTH, packing=packing)
    rows = read_examples(corpus(lines), tokenizer, recipe)
    assert (len(rows) < len(lines)) is packing

    same_training(trainer, tiny_lora(), collate(rows, tokenizer.pad_token_id, "cpu"), recipe)
