"""A small real tokenizer, a small random Llama, corpus files, and the comparison with another trainer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainerCallback

from elias_trainer.batches import Batch
from elias_trainer.contract import Recipe
from elias_trainer.objectives import batch_loss

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROSE = [
    "def add(left, right):\n    return left + right\n",
    "<|im_start|>user\nwrite the body<|im_end|>\n",
    "<|im_start|>assistant\n    total = sum(values)\n    return total<|im_end|>\n",
    "for name in names:\n        print(name)\n    return names\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE of 400 tokens, some of which join line ends with indents, as real ones do."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        PROSE * 8,
        trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=CHAT_TEMPLATE
    )


@pytest.fixture
def tiny_llama(tokenizer: Any) -> Callable[..., LlamaForCausalLM]:
    """The same random weights at every call; keywords go to its configuration."""

    def make(**changes: Any) -> LlamaForCausalLM:
        torch.manual_seed(7)
        settings: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        }
        return LlamaForCausalLM(LlamaConfig(**(settings | changes)))

    return make


@pytest.fixture
def lora() -> LoraConfig:
    """On all linear layers, not at zero as usual, no dropout."""
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=modules, init_lora_weights=False)


@pytest.fixture
def tiny_lora(tiny_llama: Callable[..., LlamaForCausalLM], lora: LoraConfig) -> Callable[..., PeftModel]:
    """The same random adapter on the same random base at every call."""

    def make(**changes: Any) -> PeftModel:
        model = tiny_llama(**changes)
        torch.manual_seed(11)
        return get_peft_model(model, lora)

    return make


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[[Sequence[dict[str, Any]]], Path]:
    """Writes a corpus file of these lines; `id` is filled in."""

    def write(lines: Sequence[dict[str, Any]]) -> Path:
        path = tmp_path / "corpus.jsonl"
        filled = [{"id": f"e{number}", "session": "s", "source": "code"} | line for number, line in enumerate(lines)]
        path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in filled), encoding="utf-8")
        return path

    return write


def chat(*turns: str, **more: Any) -> dict[str, Any]:
    """A corpus line whose turns alternate between user and assistant."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": turn} for number, turn in enumerate(turns)]
    return {"messages": messages} | more


@pytest.fixture(name="chat")
def chat_fixture() -> Callable[..., dict[str, Any]]:
    return chat


ORACLE_SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "bf16": False,
    "activation_checkpointing": False,
    "train_sampling_strategy": "sequential",
    "use_cpu": True,
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
}
"""For TRL: plain steps with nothing in between, so that losses and gradients can be set side by side."""


class Gradients(TrainerCallback):
    """Keeps the gradients that a Trainer is about to step with."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.steps.append(gradients_of(model))


def gradients_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_training(trainer: Trainer, model: PeftModel, batch: Batch, recipe: Recipe) -> None:
    """Three steps of `trainer` and three of ours on `model` have the same losses and gradients to 1e-5."""
    watcher = Gradients()
    trainer.add_callback(watcher)
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=trainer.args.learning_rate)
    model.train()
    assert len(expected) == len(watcher.steps) == trainer.args.max_steps
    for their_loss, their_gradients in zip(expected, watcher.steps, strict=True):
        total, weight = batch_loss(model, batch, recipe)
        loss = total / weight
        loss.backward()
        ours = gradients_of(model)
        assert loss.item() == pytest.approx(their_loss, abs=1e-5)
        assert ours and ours.keys() == their_gradients.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], their_gradients[name], rtol=0, atol=1e-5)
        optimizer.step()
        optimizer.zero_grad()
    assert expected[-1] < expected[0]


@pytest.fixture
def oracle_settings(tmp_path: Path) -> dict[str, Any]:
    return ORACLE_SETTINGS | {"output_dir": str(tmp_path / "trl")}


@pytest.fixture
def same_training() -> Callable[..., None]:
    return assert_same_training
