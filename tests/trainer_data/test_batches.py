"""The order of an epoch, packing, and what a batch holds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elias_trainer.batches import UNTRAINED, Document, Packed, Pair, collate, micro_batches, trained_tokens
from elias_trainer.contract import Recipe
from elias_trainer.packing import pack

LENGTHS = st.lists(st.integers(1, 64), max_size=60)


def document(length: int, *, prompt: int = 1, weight: float = 1.0, first: int = 10) -> Document:
    input_ids = np.arange(first, first + length, dtype=np.int32)
    labels = input_ids.copy()
    labels[:prompt] = UNTRAINED
    return Document(example=str(first), input_ids=input_ids, labels=labels, weight=weight)


def rows(count: int) -> list[Packed]:
    return [Packed(documents=(document(3),)) for _ in range(count)]


@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 2**31), st.integers(0, 50))
def test_an_epoch_visits_every_row_once(count: int, size: int, seed: int, epoch: int) -> None:
    batches = micro_batches(rows(count), Recipe(batch_size=size, seed=seed), epoch)

    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)


@given(st.integers(2, 100), st.integers(0, 2**31), st.integers(0, 50))
def test_the_order_depends_on_seed_and_epoch_alone(count: int, seed: int, epoch: int) -> None:
    recipe = Recipe(batch_size=1, seed=seed)
    torch_state = torch.random.get_rng_state()
    order = micro_batches(rows(count), recipe, epoch)
    random.seed(epoch)

    assert micro_batches(rows(count), Recipe(batch_size=1, seed=seed, rank=64, learning_rate=1.0), epoch) == order
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_epochs_and_seeds_differ_in_order_and_stay_what_they_were() -> None:
    orders = [
        [index for batch in micro_batches(rows(8), Recipe(seed=seed), epoch) for index in batch]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]

    assert orders == [[7, 5, 4, 3, 1, 6, 2, 0], [3, 7, 6, 1, 4, 2, 5, 0], [2, 1, 5, 7, 0, 3, 4, 6]]


@given(LENGTHS, st.integers(64, 200))
def test_packing_loses_no_document_and_overfills_no_sequence(lengths: list[int], capacity: int) -> None:
    groups = pack(lengths, capacity)

    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in group) <= capacity for group in groups)
    sums = sorted(sum(lengths[index] for index in group) for group in groups)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity, "no two sequences would fit into one"
    assert pack(lengths, capacity) == groups


def test_packing_takes_the_fullest_sequence_that_has_room() -> None:
    assert pack([5, 6, 4, 3, 2], 10) == [[0, 3, 4], [1, 2]]


def test_a_document_longer_than_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="document 1 has 12 tokens"):
        pack([3, 12], 10)


@given(st.lists(st.tuples(st.integers(2, 9), st.integers(1, 8), st.floats(0.1, 2)), min_size=1, max_size=6))
def test_a_batch_holds_every_trained_token_with_its_weight_where_its_logits_stand(
    shapes: list[tuple[int, int, float]],
) -> None:
    documents = [
        document(length, prompt=min(prompt, length - 1), weight=weight, first=100 * n)
        for n, (length, prompt, weight) in enumerate(shapes)
    ]
    sequences = [Packed(documents=tuple(documents[::2])), *(Packed(documents=(one,)) for one in documents[1::2])]

    batch = collate(sequences, 0, "cpu")

    assert batch.tokens == trained_tokens(batch) == sum(map(len, documents))
    width = batch.input_ids.shape[1]
    expected = {
        int(label): np.float32(one.weight) for one in documents for label in one.labels[one.labels != UNTRAINED]
    }
    found = dict(zip(batch.targets.tolist(), batch.weights.numpy(), strict=True))
    assert found == expected
    for at, target in zip(batch.at.tolist(), batch.targets.tolist(), strict=True):
        line, column = divmod(at, batch.kept)
        assert batch.input_ids[line, column + width - batch.kept + 1] == target
        assert batch.input_ids[line, column + width - batch.kept] == target - 1, "the token before, in its document"


def test_positions_start_anew_in_each_document_and_in_the_padding() -> None:
    batch = collate([Packed(documents=(document(3), document(2))), Packed(documents=(document(2),))], 0, "cpu")

    assert batch.position_ids is not None
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]


def test_pairs_stand_with_all_chosen_first() -> None:
    pairs = [Pair(chosen=document(3, first=n), rejected=document(2, first=n + 1, weight=2)) for n in (10, 20)]

    batch = collate(pairs, 0, "cpu")

    assert batch.input_ids[:, 0].tolist() == [10, 20, 11, 21]
    assert batch.pair_weights is not None and batch.pair_weights.tolist() == [1, 1]
    assert batch.position_ids is None
