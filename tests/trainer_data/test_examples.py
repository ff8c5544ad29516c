"""Corpus lines and the rows made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elias_trainer.batches import Packed, Pair
from elias_trainer.contract import Objective, Recipe
from elias_trainer.examples import read_examples

GOOD = {"id": "a", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "an answer"}]}
PAIR = {"id": "p", "messages": [{"role": "user", "content": "q"}], "chosen": "yes", "rejected": "no"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"\n", "not JSON"),
        (b"{", "not JSON"),
        (b'"text"', "not an example"),
        (b"\xff\xfe", "not UTF-8"),
        (json.dumps({"messages": GOOD["messages"]}).encode(), "an object with an `id`"),
        (json.dumps(GOOD | {"messages": []}).encode(), "`messages` is missing or empty"),
        (json.dumps(GOOD | {"messages": [{"role": "user"}]}).encode(), "`role` and `content`"),
        (json.dumps(GOOD | {"messages": GOOD["messages"][:1]}).encode(), "ends with the assistant's answer"),
        (json.dumps(GOOD | {"messages": GOOD["messages"][1:]}).encode(), "before anyone asked"),
        (json.dumps(GOOD | {"weight_ppm": -1}).encode(), "weight_ppm is -1"),
        (json.dumps(GOOD | {"weight_ppm": 0.5}).encode(), "weight_ppm is 0.5"),
        (json.dumps(PAIR | {"rejected": None}).encode(), "needs `chosen` and `rejected`"),
        (json.dumps(PAIR | {"messages": GOOD["messages"]}).encode(), "ends with a prompt"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(line: bytes, complaint: str, tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line)

    with pytest.raises(ValueError, match=rf"train\.jsonl:2: .*{complaint}"):
        read_examples(path, tokenizer, Recipe())


def test_an_empty_corpus_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"")

    with pytest.raises(ValueError, match="no example has a trained token"):
        read_examples(path, tokenizer, Recipe())


def test_a_corpus_without_pairs_is_refused_for_dpo(tokenizer: Any, corpus: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="no preference pairs; train it with the objective sft"):
        read_examples(corpus([GOOD]), tokenizer, Recipe(objective=Objective.DPO))


def test_packing_pairs_is_refused(tokenizer: Any, corpus: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="leave packing off"):
        read_examples(corpus([PAIR]), tokenizer, Recipe(objective=Objective.DPO, packing=True))


def test_each_objective_takes_its_own_lines_and_counts_the_others(tokenizer: Any, corpus: Callable[..., Path]) -> None:
    path = corpus([GOOD | {"id": "one"}, PAIR | {"id": "two"}, GOOD | {"id": "three"}])

    plain = read_examples(path, tokenizer, Recipe())
    pairs = read_examples(path, tokenizer, Recipe(objective=Objective.DPO))

    assert [row.documents[0].example for row in plain if isinstance(row, Packed)] == ["one", "three"]
    assert [row.chosen.example for row in pairs if isinstance(row, Pair)] == ["two"]
    assert (plain.skipped, pairs.skipped) == (1, 2)


def test_a_long_example_is_cut_at_its_end_and_one_with_nothing_left_to_learn_is_dropped(
    tokenizer: Any, corpus: Callable[..., Path], chat: Any
) -> None:
    path = corpus([chat("q", "word " * 50), chat("why " * 50, "so"), chat("q", "x", weight_ppm=0), chat("q", "x")])

    rows = read_examples(path, tokenizer, Recipe(sequence_length=40))

    assert [row.documents[0].example for row in rows if isinstance(row, Packed)] == ["e0", "e3"]
    assert rows[0].tokens == 40
    assert (rows.dropped, rows.cut) == (2, 1)


def test_both_answers_of_a_pair_are_trained_on_the_same_prompt(
    tokenizer: Any, corpus: Callable[..., Path], chat: Any
) -> None:
    path = corpus([chat("one", "two", "three", chosen="yes", rejected="no way", weight_ppm=250_000)])

    pair = read_examples(path, tokenizer, Recipe(objective=Objective.DPO))[0]

    assert isinstance(pair, Pair)
    texts = [tokenizer.decode(d.labels[d.labels >= 0].tolist()) for d in (pair.chosen, pair.rejected)]
    assert texts == ["yes<|im_end|>\n", "no way<|im_end|>\n"]
    start = int((pair.chosen.labels >= 0).argmax())
    assert pair.chosen.input_ids[:start].tolist() == pair.rejected.input_ids[:start].tolist()
    assert pair.chosen.weight == 0.25


def test_several_thousand_examples_keep_their_order_across_the_tokenizer_s_calls(
    tokenizer: Any, corpus: Callable[..., Path], chat: Any
) -> None:
    rows = read_examples(corpus([chat(f"q{n}", f"a{n}") for n in range(2_100)]), tokenizer, Recipe())

    last = rows[-1]
    assert isinstance(last, Packed) and len(rows) == 2_100
    assert tokenizer.decode(last.documents[0].input_ids.tolist()).count("a2099") == 1
