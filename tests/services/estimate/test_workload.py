"""How much work a recipe makes of a corpus, before a trainer has counted it and after."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.services.workload import steps, work_of_corpus, work_of_events, work_unknown
from elias_trainer.contract import Objective, Recipe
from elias_trainer.schedule import Plan

from .conftest import Script


def lines(lengths, **more):
    for length in lengths:
        messages = [{"role": "user", "content": "x" * (length // 2)}, {"role": "assistant", "content": "y" * length}]
        yield json.dumps({"id": "e", "messages": messages, **more}).encode()


@given(st.integers(1, 5000), st.integers(1, 32), st.integers(1, 8), st.floats(0.05, 5))
def test_steps_are_counted_as_the_trainer_counts_them(rows, batch, accumulation, epochs):

    recipe = Recipe(batch_size=batch, accumulation=accumulation, epochs=epochs)
    assert steps(rows, recipe) == Plan([None] * rows, recipe).step_total  # type: ignore[list-item] # only counted


def test_longer_examples_make_wider_batches_up_to_the_sequence_length():
    recipe = Recipe(batch_size=4, sequence_length=1024)
    short, long, cut = (work_of_corpus(lines([n] * 50), recipe, "x").sequences.width for n in (200, 800, 90_000))
    assert short < long < cut == 1024


def test_padding_makes_a_batch_as_wide_as_its_longest():
    alone = work_of_corpus(lines([100, 1000] * 50), Recipe(batch_size=1), "x").sequences.width
    together = work_of_corpus(lines([100, 1000] * 50), Recipe(batch_size=8), "x").sequences.width
    assert alone < together < work_of_corpus(lines([1000]), Recipe(), "x").sequences.width


def test_packing_takes_fewer_and_full_sequences():
    plain, packed = Recipe(sequence_length=1024), Recipe(sequence_length=1024, packing=True)
    told, full = (work_of_corpus(lines([300] * 400), recipe, "x") for recipe in (plain, packed))
    assert full.sequences.width == 1024
    assert full.step_total < told.step_total


def test_a_long_corpus_is_counted_without_being_read():
    many = work_of_corpus((line for _ in range(8000) for line in lines([64])), Recipe(batch_size=4), "x")
    assert many.step_total == 2000


def test_tiny_has_a_token_for_each_byte():
    tiny, other = (work_of_corpus(lines([300] * 9), Recipe(), name).sequences.width for name in ("tiny", "starter"))
    assert tiny > 2 * other


def test_only_lines_of_the_wanted_objective_count():
    pairs = [*lines([300] * 10), *lines([300] * 4, chosen="a", rejected="b"), b"no example", b'{"messages": 3}']
    assert work_of_corpus(pairs, Recipe(batch_size=1), "x").step_total == 10
    assert work_of_corpus(pairs, Recipe(batch_size=1, objective=Objective.DPO), "x").step_total == 4


@pytest.mark.parametrize("corpus", [[], [b"no example"]])
def test_without_a_corpus_every_sequence_is_taken_as_full(corpus):
    recipe = Recipe(max_steps=7)
    assert work_of_corpus(corpus, recipe, "x") == work_unknown(recipe)
    assert work_unknown(recipe).step_total == 7
    assert work_unknown(replace(recipe, max_steps=None)).step_total is None


def test_what_the_trainer_counted_is_narrower_than_what_was_guessed():
    counted = work_of_events(Script([]).events(), Recipe(batch_size=1))
    assert counted is not None
    assert counted.step_total == 1000
    assert counted.sequences.width == 300
    assert counted.factor < work_of_corpus(lines([300]), Recipe(), "x").factor
    assert work_of_events([], Recipe()) is None
