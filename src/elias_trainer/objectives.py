"""The loss of a micro-batch, as a weighted sum and the weights' sum: the loop divides over the whole step."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from elias_trainer.batches import Batch
from elias_trainer.contract import Objective, Recipe


def batch_loss(
    model: nn.Module, batch: Batch, recipe: Recipe, reference: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """The loss times weight summed, and the weights summed, both 0-d float32; over tokens for sft, pairs for dpo.

    `reference` is what dpo compares with; None takes `model` with its adapter off. Raises ValueError where there is
    no adapter to take off.
    """
    if recipe.objective is Objective.DPO:
        return _dpo_loss(model, batch, recipe.dpo_beta, reference)
    return (token_losses(model, batch) * batch.weights).sum(), batch.weights.sum()


def token_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood in nats of each trained token, in the order of `batch.targets`; float32."""
    options: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.position_ids is not None:
        # Positions that start anew, with no mask and no cache, are how transformers is told of packed documents.
        options["position_ids"] = batch.position_ids
    if _keeps_logits(bare_model(model)):
        options["logits_to_keep"] = batch.kept
    # No mask is needed: padding stands at the end, where causal attention cannot see it from any trained token.
    logits = model(**options).logits[:, -batch.kept :]
    picked = logits.flatten(0, 1).index_select(0, batch.at)
    return functional.cross_entropy(picked.float(), batch.targets, reduction="none")


def bare_model(model: nn.Module) -> nn.Module:
    """The transformers model inside DDP's and PEFT's wrappers."""
    inner = _undistributed(model)
    found: nn.Module = inner.get_base_model() if _has_adapter(inner) else inner
    return found


def _dpo_loss(model: nn.Module, batch: Batch, beta: float, reference: nn.Module | None) -> tuple[Tensor, Tensor]:
    """The sigmoid loss of Rafailov et al. 2023 (arXiv:2305.18290), equation 7."""
    if batch.pair_weights is None:
        raise ValueError("dpo needs preference pairs, this batch holds plain examples")
    # The reference goes first, so that nothing touches the adapter between the forward pass and its backward pass.
    with torch.no_grad(), _frozen(model, reference) as referee:
        known = _margins(token_losses(referee, batch), batch)
    learned = _margins(token_losses(model, batch), batch)
    losses = -functional.logsigmoid(beta * (learned - known))
    return (losses * batch.pair_weights).sum(), batch.pair_weights.sum()


def _margins(losses: Tensor, batch: Batch) -> Tensor:
    """By how much the chosen answer is likelier than the rejected, in nats, for each pair."""
    sequences = batch.input_ids.shape[0]
    # A copy to known places and a sum along a row have one order of addition; index_add has none on a GPU.
    grid = losses.new_zeros(sequences * batch.kept).index_copy(0, batch.at, losses)
    chosen, rejected = (-grid.view(sequences, batch.kept).sum(dim=1)).chunk(2)
    return chosen - rejected


@contextmanager
def _frozen(model: nn.Module, reference: nn.Module | None) -> Iterator[nn.Module]:
    """The model that dpo compares with, without dropout; `model` is as before afterwards."""
    if reference is not None:
        yield reference
        return
    inner = _undistributed(model)
    if not _has_adapter(inner):
        raise ValueError("dpo compares with the untrained base, which full fine-tuning changes: use lora or qlora")
    was_training = inner.training
    inner.eval()
    try:
        with inner.disable_adapter():
            yield inner
    finally:
        inner.train(was_training)


def _undistributed(model: nn.Module) -> Any:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _has_adapter(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter")


def _keeps_logits(model: nn.Module) -> bool:
    """Whether this model's `forward` can leave out logits that nobody needs."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters
