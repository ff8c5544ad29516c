"""Losses: documents in one sequence see nothing of each other, weights count, and dpo has its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen2Config, Qwen2ForCausalLM

from elias_trainer.batches import Batch, Document, Packed, collate
from elias_trainer.contract import Objective, Recipe
from elias_trainer.examples import read_examples
from elias_trainer.objectives import batch_loss, token_losses


def documents(count: int = 5, *, weights: tuple[float, ...] = (1.0,)) -> list[Document]:
    source = np.random.default_rng(3)
    made = []
    for number in range(count):
        input_ids = source.integers(3, 300, size=int(source.integers(4, 20)), dtype=np.int32)
        labels = np.where(np.arange(len(input_ids)) > 1, input_ids, np.int32(-100))
        weight = weights[number % len(weights)]
        made.append(Document(example=str(number), input_ids=input_ids, labels=labels, weight=weight))
    return made


def alone(model: torch.nn.Module, made: list[Document]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([token_losses(model, collate([Packed(documents=(one,))], 0, "cpu")) for one in made])


def together(model: torch.nn.Module, made: list[Document]) -> torch.Tensor:
    """One sequence of three documents above one of two, so that padding is there as well."""
    packs = [Packed(documents=tuple(made[:3])), Packed(documents=tuple(made[3:]))]
    with torch.no_grad():
        return token_losses(model, collate(packs, 0, "cpu"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_have_the_losses_they_have_alone(
    attention: str, tiny_llama: Callable[..., torch.nn.Module]
) -> None:
    model, made = tiny_llama(attn_implementation=attention).eval(), documents()

    torch.testing.assert_close(together(model, made), alone(model, made), rtol=0, atol=1e-5)


def test_packed_documents_stay_apart_in_bfloat16(tiny_llama: Callable[..., torch.nn.Module]) -> None:
    model, made = tiny_llama().eval().to(torch.bfloat16), documents()

    torch.testing.assert_close(together(model, made), alone(model, made), rtol=0, atol=5e-2)


def test_packed_documents_stay_apart_under_a_sliding_window(tokenizer: Any) -> None:
    torch.manual_seed(5)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=0,
    )
    model, made = Qwen2ForCausalLM(config).eval(), documents()

    torch.testing.assert_close(together(model, made), alone(model, made), rtol=0, atol=1e-5)


def test_a_token_of_another_document_changes_nothing(tiny_llama: Callable[..., torch.nn.Module]) -> None:
    model, made = tiny_llama().eval(), documents()
    before = together(model, made)
    made[0].input_ids[:] = 7

    after = together(model, made)

    own = made[0].trained
    assert not torch.equal(after[:own], before[:own])
    torch.testing.assert_close(after[own:], before[own:], rtol=0, atol=1e-6)


def test_gradients_of_a_packed_batch_are_those_of_its_documents(tiny_lora: Callable[[], PeftModel]) -> None:
    made, found = documents(weights=(1.0, 0.25)), []
    for rows in ([Packed(documents=tuple(made))], [Packed(documents=(one,)) for one in made]):
        model = tiny_lora().train()
        total, weight = batch_loss(model, collate(rows, 0, "cpu"), Recipe())
        (total / weight).backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])

    for packed, padded in zip(*found, strict=True):
        torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)


def test_each_example_s_tokens_count_by_its_weight(tiny_llama: Callable[..., torch.nn.Module]) -> None:
    model, made = tiny_llama().eval(), documents(3, weights=(1.0, 0.5, 2.0))
    batch = collate([Packed(documents=(one,)) for one in made], 0, "cpu")

    with torch.no_grad():
        total, weight = batch_loss(model, batch, Recipe())

    losses = [alone(model, [one]).sum().item() for one in made]
    assert total.item() == pytest.approx(losses[0] + 0.5 * losses[1] + 2 * losses[2], rel=1e-5)
    assert weight.item() == pytest.approx(sum(one.trained * one.weight for one in made))
    assert (total.dtype, weight.dtype, total.dim(), weight.dim()) == (torch.float32, torch.float32, 0, 0)


def test_leaving_out_logits_that_nobody_needs_changes_no_loss(tiny_llama: Callable[..., torch.nn.Module]) -> None:
    model, made = tiny_llama().eval(), documents()
    batch = collate([Packed(documents=(one,)) for one in made], 0, "cpu")
    assert batch.kept < batch.input_ids.shape[1]

    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
        found = token_losses(model, batch)

    expected = [
        -torch.log_softmax(logits[line, at], dim=-1)[int(one.labels[at + 1])]
        for line, one in enumerate(made)
        for at in range(len(one) - 1)
        if one.labels[at + 1] >= 0
    ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


@pytest.fixture
def pair_batch(tokenizer: Any, corpus: Callable[..., Path], chat: Any) -> Batch:
    lines = [chat("write it", chosen="yes", rejected="no way"), chat("again", chosen="ok", rejected="", weight_ppm=500)]
    rows = read_examples(corpus(lines), tokenizer, DPO)
    return collate(rows, tokenizer.pad_token_id, "cpu")


DPO = Recipe(objective=Objective.DPO)


def test_dpo_starts_at_the_logarithm_of_two_and_leaves_the_model_as_it_was(
    tiny_lora: Callable[[], PeftModel], pair_batch: Batch
) -> None:
    model = tiny_lora().train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    total, weight = batch_loss(model, pair_batch, DPO)

    assert (total / weight).item() == pytest.approx(0.6931472, abs=1e-6)
    assert weight.item() == pytest.approx(1.0005)
    assert model.training and {n for n, p in model.named_parameters() if p.requires_grad} == trainable
    total.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n in trainable)


def test_dpo_of_a_model_without_an_adapter_is_refused(
    tiny_llama: Callable[..., torch.nn.Module], pair_batch: Batch
) -> None:
    with pytest.raises(ValueError, match="use lora or qlora"):
        batch_loss(tiny_llama(), pair_batch, DPO)


def test_dpo_of_a_model_without_an_adapter_takes_a_given_reference(
    tiny_llama: Callable[..., torch.nn.Module], pair_batch: Batch
) -> None:
    total, weight = batch_loss(tiny_llama(), pair_batch, DPO, tiny_llama().eval())

    assert (total / weight).item() == pytest.approx(0.6931472, abs=1e-6)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", world_size=1, rank=0)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("objective", [Objective.SFT, Objective.DPO])
def test_wrapped_for_several_processes_the_loss_and_gradients_are_the_same(
    objective: Objective, tiny_lora: Callable[[], PeftModel], pair_batch: Batch
) -> None:
    batch = pair_batch if objective is Objective.DPO else collate([Packed(documents=tuple(documents()))], 0, "cpu")
    plain, inner = tiny_lora().train(), tiny_lora().train()
    wrapped = DistributedDataParallel(inner)

    for _ in range(2):
        losses = []
        for model in (plain, wrapped):
            total, weight = batch_loss(model, batch, Recipe(objective=objective))
            (total / weight).backward()
            losses.append(total.item())
        assert losses[0] == losses[1]

    for mine, theirs in zip(plain.parameters(), inner.parameters(), strict=True):
        assert (mine.grad is None) is (theirs.grad is None)
        if mine.grad is not None and theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-6)
