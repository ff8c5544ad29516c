"""TRL is the oracle: its DPOTrainer and our loss see the same pairs and the same weights, step after step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from elias_trainer.contract import Objective, Recipe
from elias_trainer.examples import collate, read_examples

LENGTH = 96


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_losses_and_gradients_are_those_of_trl(
    beta: float,
    tiny_llama: Callable[[], LlamaForCausalLM],
    tiny_lora: Callable[[], PeftModel],
    lora: LoraConfig,
    tokenizer: Any,
    corpus: Any,
    chat: Any,
    oracle_settings: Any,
    same_training: Any,
) -> None:
    lines = [
        chat(f"write the body of add_{n}", chosen=f"return {n} + right" * (n % 3 + 1), rejected="pass" * (n + 1))
        for n in range(5)
    ]
    answer = "assistant"
    pairs = [
        {
            "prompt": line["messages"],
            "chosen": [{"role": answer, "content": line["chosen"]}],
            "rejected": [{"role": answer, "content": line["rejected"]}],
        }
        for line in lines
    ]
    trainer = DPOTrainer(
        model=tiny_llama(),
        peft_config=lora,
        args=DPOConfig(**oracle_settings, per_device_train_batch_size=5, max_length=LENGTH, beta=beta),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    )
    # Given the adapter at once, TRL would take it for the reference; ours is the base.
    trainer.model.load_state_dict(tiny_lora().state_dict())
    recipe = Recipe(objective=Objective.DPO, dpo_beta=beta, sequence_length=LENGTH)
    rows = read_examples(corpus(lines), tokenizer, recipe)

    same_training(trainer, tiny_lora(), collate(rows, tokenizer.pad_token_id, "cpu"), recipe)
