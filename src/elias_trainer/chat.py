"""A chat as tokens: what the model reads, and which of it are the assistant's own words.

Templates rarely mark the assistant's part, so it is found by rendering: the chat up to an assistant's turn with the
generation prompt, and the chat with that turn. What the second has beyond the first is what the assistant says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from elias_trainer.contract import PLAIN_TEMPLATE

CHUNK = 1024
"""Chats tokenized in one call; bounds the memory of the tokenizer's answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    messages: Sequence[dict[str, str]]
    where: str
    """File and line, for errors."""
    train_from: int = 0
    """Assistant turns before this index are only read."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenizedChat:
    input_ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    """True on the assistant's tokens, what ends its turn included."""


@dataclass(frozen=True, slots=True)
class _Rendered:
    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters of the assistant's turns, in order."""
    where: str

    @property
    def cuts(self) -> list[int]:
        return sorted({0, len(self.text), *(edge for span in self.spans for edge in span)})

    @property
    def pieces(self) -> list[str]:
        cuts = self.cuts
        return [self.text[start:end] for start, end in pairwise(cuts)]


def tokenize_chats(chats: Sequence[Chat], tokenizer: Any) -> Iterator[TokenizedChat]:
    """In order. Raises ValueError naming `where` of a chat that the template or the tokenizer cannot take apart."""
    for start in range(0, len(chats), CHUNK):
        rendered = [_render(chat, tokenizer) for chat in chats[start : start + CHUNK]]
        wholes = _ids(tokenizer, [one.text for one in rendered])
        pieces = iter(_ids(tokenizer, [piece for one in rendered for piece in one.pieces]))
        for one, whole in zip(rendered, wholes, strict=True):
            parts = [next(pieces) for _ in one.pieces]
            yield _marked(one, *_split(one, whole, parts, tokenizer))


def render(messages: Sequence[Mapping[str, str]], tokenizer: Any, *, where: str, prompting: bool) -> str:
    """By the tokenizer's own template, or the plain one; `prompting` ends it where the assistant begins.

    Raises ValueError naming `where` for a chat that the template refuses.
    """
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=prompting
        )
    except TemplateError as error:
        raise ValueError(f"{where}: the base's chat template refuses this chat: {error}") from error
    return text


def _render(chat: Chat, tokenizer: Any) -> _Rendered:
    spans = []
    text, messages = "", list(chat.messages)
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index < chat.train_from:
            continue
        prompt = render(messages[:index], tokenizer, where=chat.where, prompting=True)
        answered = render(messages[: index + 1], tokenizer, where=chat.where, prompting=False)
        if not (prompt.startswith(text) and answered.startswith(prompt)):
            raise ValueError(
                f"{chat.where}: the base's chat template rewrites earlier turns, so message {index} cannot be told"
                " from its prompt; make each answer an example of its own"
            )
        spans.append((len(prompt), len(answered)))
        text = answered
    return _Rendered(text, tuple(spans), chat.where)


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    found = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    ids: list[list[int]] = found["input_ids"]
    return ids


def _split(one: _Rendered, whole: list[int], parts: list[list[int]], tokenizer: Any) -> tuple[list[int], list[int]]:
    """The chat's token ids, and the token index of each of its cuts."""
    joined = [token for part in parts for token in part]
    edges = np.cumsum([0, *map(len, parts)]).tolist()
    # Where a token would straddle the edge of a turn (a code answer's indent after the prompt's line end), the prompt
    # as it will be read alone counts: the pieces are the chat, if they say the same.
    if joined == whole or _text(tokenizer, joined) == _text(tokenizer, whole):
        return joined, edges
    # SentencePiece puts a space before each piece; its cuts must be found in the whole.
    heads = _ids(tokenizer, [one.text[:cut] for cut in one.cuts])
    if all(whole[: len(head)] == head for head in heads):
        return whole, [len(head) for head in heads]
    raise ValueError(f"{one.where}: the base's tokenizer joins the edge of a turn into one token, and cannot be split")


def _text(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _marked(one: _Rendered, ids: list[int], edges: list[int]) -> TokenizedChat:
    index_of = dict(zip(one.cuts, edges, strict=True))
    trained = np.zeros(len(ids), dtype=np.bool_)
    for start, end in one.spans:
        trained[index_of[start] : index_of[end]] = True
    return TokenizedChat(input_ids=np.asarray(ids, dtype=np.int32), trained=trained)
