"""Rows of tokens, their order in an epoch, and the tensors a micro-batch is made of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elias_trainer.contract import Recipe

UNTRAINED = -100
"""The label of a token that is read and not trained, as everywhere in PyTorch."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Document:
    """One example as tokens: a chat, or one side of a preference pair."""

    example: str
    """The example's id."""
    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    """The token itself where it is trained, else `UNTRAINED`; never trained on the first, which nothing predicts."""
    weight: float

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained(self) -> int:
        return int((self.labels != UNTRAINED).sum())


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Packed:
    """One sequence for sft: one document, or several of which none sees another."""

    documents: tuple[Document, ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.documents))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pair:
    """Two answers to one prompt, for dpo."""

    chosen: Document
    rejected: Document

    @property
    def tokens(self) -> int:
        return len(self.chosen) + len(self.rejected)


Row = Packed | Pair


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """A micro-batch on its device. `targets`, `at` and `weights` have an entry for each trained token."""

    input_ids: Tensor
    """[sequences, width], padded at the end; of pairs first all chosen, then all rejected."""
    position_ids: Tensor | None
    """Counted anew in each document; None where no sequence holds more than one."""
    kept: int
    """The last so many positions hold every one that predicts a trained token; logits are needed of these alone."""
    at: Tensor
    """Where, in [sequences, kept] laid flat, the logits stand that predict the target."""
    targets: Tensor
    weights: Tensor
    pair_weights: Tensor | None
    """[pairs]; None for sft."""
    tokens: int
    """Prompts included, padding left out."""


def micro_batches(rows: Sequence[Row], recipe: Recipe, epoch: int) -> list[list[int]]:
    """Indexes into `rows` for each micro-batch of an epoch, from the seed and the epoch alone; the last may be short.

    Uses `random()` only, the one method whose sequence Python promises to keep for a seed.
    """
    source = random.Random(f"elias {recipe.seed} {epoch}")
    order = sorted(range(len(rows)), key=lambda _: source.random())
    return [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]


def trained_tokens(batch: Batch) -> int:
    """Tokens the step learns from: prompts are read and count, padding does not."""
    return batch.tokens


def collate(rows: Sequence[Row], pad_id: int, device: torch.device | str) -> Batch:
    """The rows, all of one kind, as tensors on `device`."""
    pairs = [row for row in rows if isinstance(row, Pair)]
    packs = [row.documents for row in rows if isinstance(row, Packed)]
    sequences = packs or [(pair.chosen,) for pair in pairs] + [(pair.rejected,) for pair in pairs]
    input_ids, positions, labels, weights = _grid(sequences, pad_id)
    # The logits at one position predict the token at the next.
    ahead = labels[:, 1:]
    lines, columns = np.nonzero(ahead != UNTRAINED)
    first = int(columns.min())
    kept = input_ids.shape[1] - first

    def tensor(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Batch(
        input_ids=tensor(input_ids),
        position_ids=tensor(positions) if any(len(documents) > 1 for documents in sequences) else None,
        kept=kept,
        at=tensor(lines * kept + columns - first),
        targets=tensor(ahead[lines, columns]),
        weights=tensor(weights[:, 1:][lines, columns]),
        pair_weights=tensor(np.array([pair.chosen.weight for pair in pairs], dtype=np.float32)) if pairs else None,
        tokens=sum(row.tokens for row in rows),
    )


def _grid(
    sequences: Sequence[tuple[Document, ...]], pad_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Token ids, positions, labels and weights, each [sequences, width]; padding counts as a document of its own."""
    width = max(sum(map(len, documents)) for documents in sequences)
    shape = (len(sequences), width)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, UNTRAINED, dtype=np.int64)
    weights = np.zeros(shape, dtype=np.float32)
    for line, documents in enumerate(sequences):
        start = 0
        for document in documents:
            end = start + len(document)
            input_ids[line, start:end] = document.input_ids
            positions[line, start:end] = np.arange(len(document))
            labels[line, start:end] = document.labels
            weights[line, start:end] = document.weight
            start = end
        positions[line, start:] = np.arange(width - start)
    return input_ids, positions, labels, weights
