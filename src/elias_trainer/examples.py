"""A corpus file's lines, read and made into rows to train on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elias_trainer.batches import UNTRAINED, Batch, Document, Packed, Pair, Row, collate, micro_batches, trained_tokens
from elias_trainer.chat import Chat, TokenizedChat, tokenize_chats
from elias_trainer.contract import Objective, Recipe
from elias_trainer.packing import pack

__all__ = ["Batch", "Row", "Rows", "collate", "micro_batches", "read_examples", "trained_tokens"]

PLAIN_WEIGHT_PPM = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleLine:
    """What a trainer needs of a corpus line."""

    id: str
    messages: tuple[dict[str, str], ...]
    weight: float
    """1.0 for a plain example."""
    answers: tuple[str, str] | None
    """The chosen and the rejected one, of a preference pair."""
    where: str
    """File and line."""


class Rows(list[Row]):
    """Rows to train on, and what was left out of them."""

    def __init__(self, rows: Iterable[Row] = (), *, dropped: int = 0, skipped: int = 0, cut: int = 0) -> None:
        super().__init__(rows)
        self.dropped = dropped
        """Examples of no weight, or with no trained token inside the sequence length."""
        self.skipped = skipped
        """Lines of the other objective's kind."""
        self.cut = cut
        """Documents cut at the sequence length and kept."""


def read_examples(path: Path, tokenizer: Any, recipe: Recipe) -> Rows:
    """The rows of a corpus file for the recipe's objective, in the file's order.

    Raises ValueError naming file and line of a line that is not an example, or the file when nothing is left of it.
    """
    lines = list(read_lines(path))
    wants_pairs = recipe.objective is Objective.DPO
    if wants_pairs and recipe.packing:
        raise ValueError("preference pairs are not packed: leave packing off for dpo")
    wanted = [line for line in lines if (line.answers is not None) is wants_pairs]
    if lines and not wanted:
        kind, other = ("preference pairs", "sft") if wants_pairs else ("plain examples", "dpo")
        raise ValueError(f"{path}: holds no {kind}; train it with the objective {other}")
    rows = _pairs(wanted, tokenizer, recipe) if wants_pairs else _packs(wanted, tokenizer, recipe)
    rows.skipped = len(lines) - len(wanted)
    if not rows:
        raise ValueError(
            f"{path}: no example has a trained token in its first {recipe.sequence_length} tokens;"
            " add examples or raise the sequence length"
        )
    return rows


def read_lines(path: Path) -> Iterator[ExampleLine]:
    """Each line of a corpus file, checked. Raises ValueError naming file and line."""
    with path.open("rb") as stream:
        for number, data in enumerate(stream, start=1):
            yield _line(data, f"{path}:{number}")


def _line(data: bytes, where: str) -> ExampleLine:
    try:
        raw = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str):
        raise ValueError(f"{where}: not an example: an object with an `id` belongs here")
    weight_ppm = raw.get("weight_ppm", PLAIN_WEIGHT_PPM)
    if not isinstance(weight_ppm, int) or isinstance(weight_ppm, bool) or weight_ppm < 0:
        raise ValueError(f"{where}: weight_ppm is {weight_ppm!r}, a whole number of zero or more belongs here")
    messages, answers = _messages(raw.get("messages"), where), _answers(raw, where)
    if (messages[-1]["role"] == "assistant") is (answers is not None):
        what = "a preference pair ends with a prompt" if answers else "an example ends with the assistant's answer"
        raise ValueError(f"{where}: the last message is by {messages[-1]['role']!r}, but {what}")
    return ExampleLine(
        id=raw["id"], messages=messages, weight=weight_ppm / PLAIN_WEIGHT_PPM, answers=answers, where=where
    )


def _messages(raw: Any, where: str) -> tuple[dict[str, str], ...]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{where}: `messages` is missing or empty")
    for message in raw:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"{where}: a message needs `role` and `content`, both text")
    if raw[0]["role"] == "assistant":
        raise ValueError(f"{where}: begins with the assistant's answer, before anyone asked")
    return tuple({"role": message["role"], "content": message["content"]} for message in raw)


def _answers(raw: dict[str, Any], where: str) -> tuple[str, str] | None:
    chosen, rejected = raw.get("chosen"), raw.get("rejected")
    if chosen is None and rejected is None:
        return None
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise ValueError(f"{where}: a preference pair needs `chosen` and `rejected`, both text")
    return chosen, rejected


def documents(lines: Sequence[ExampleLine], tokenizer: Any, length: int) -> Iterator[tuple[Document, int]]:
    """Each plain example as tokens, cut at `length`, beside how many it had before."""
    chats = [Chat(messages=line.messages, where=line.where) for line in lines]
    for line, chat in zip(lines, tokenize_chats(chats, tokenizer), strict=True):
        yield _document(line, chat, length), len(chat.input_ids)


def _packs(lines: Sequence[ExampleLine], tokenizer: Any, recipe: Recipe) -> Rows:
    made = list(documents(lines, tokenizer, recipe.sequence_length))
    kept = [(document, length) for document, length in made if document.trained and document.weight]
    lengths = [len(document) for document, _ in kept]
    groups = pack(lengths, recipe.sequence_length) if recipe.packing else [[index] for index in range(len(kept))]
    return Rows(
        (Packed(documents=tuple(kept[index][0] for index in group)) for group in groups),
        dropped=len(made) - len(kept),
        cut=sum(length > len(document) for document, length in kept),
    )


def _pairs(lines: Sequence[ExampleLine], tokenizer: Any, recipe: Recipe) -> Rows:
    sides = [_side(line, number) for line in lines for number in (0, 1)]
    tokenized = tokenize_chats(sides, tokenizer)
    rows = Rows()
    for line in lines:
        chats = (next(tokenized), next(tokenized))
        chosen, rejected = (_document(line, chat, recipe.sequence_length) for chat in chats)
        if not (chosen.trained and rejected.trained and line.weight):
            rows.dropped += 1
            continue
        rows.append(Pair(chosen=chosen, rejected=rejected))
        rows.cut += sum(len(chat.input_ids) > recipe.sequence_length for chat in chats)
    return rows


def _side(line: ExampleLine, number: int) -> Chat:
    assert line.answers is not None
    answer = {"role": "assistant", "content": line.answers[number]}
    return Chat(messages=(*line.messages, answer), where=line.where, train_from=len(line.messages))


def _document(line: ExampleLine, chat: TokenizedChat, length: int) -> Document:
    input_ids, trained = chat.input_ids[:length], chat.trained[:length].copy()
    trained[:1] = False
    labels = np.where(trained, input_ids, np.int32(UNTRAINED))
    return Document(example=line.id, input_ids=input_ids, labels=labels, weight=line.weight)
