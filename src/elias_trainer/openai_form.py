"""OpenAI's form of a question and of an answer, for the reference engine's server."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class BadRequest(ValueError):
    """What is wrong with a request, in words for whoever sent it."""


class Encodes(Protocol):
    """What a question needs of the model that is to answer it."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...

    def encode(self, text: str) -> list[int]: ...

    @property
    def context_length(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How an answer is to be drawn; temperature 0 is the likeliest token each time."""

    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()


@dataclass(kw_only=True, slots=True)
class Spoken:
    """Filled in while the answer is written."""

    prompt_tokens: int
    completion_tokens: int = 0
    finish_reason: str = "stop"
    """`stop`, or `length` when `max_tokens` was reached."""
    was_cut: bool = False
    """At a stop text."""
    gone: threading.Event = field(default_factory=threading.Event)
    """Set it to end the answer: nobody listens any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    is_chat: bool
    prompt: Sequence[int]
    wanted: Wanted
    stream: bool
    with_usage: bool


class Answer:
    """An answer in OpenAI's form, whole or in lines of server-sent events."""

    def __init__(self, *, name: str, is_chat: bool, spoken: Spoken) -> None:
        self._is_chat, self._spoken = is_chat, spoken
        kind = "chat.completion" if is_chat else "text_completion"
        prefix = "chatcmpl-" if is_chat else "cmpl-"
        self._head = {"id": prefix + uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": name}

    def whole(self, text: str) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        choice = {"index": 0, "finish_reason": self._spoken.finish_reason, "logprobs": None, **content}
        return {**self._head, "choices": [choice], "usage": self._usage()}

    def lines(self, pieces: Iterator[str], *, with_usage: bool) -> Iterator[bytes]:
        if self._is_chat:
            yield self._line([self._choice({"delta": {"role": "assistant", "content": ""}}, None)])
        for piece in pieces:
            content: dict[str, Any] = {"delta": {"content": piece}} if self._is_chat else {"text": piece}
            yield self._line([self._choice(content, None)])
        end: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        yield self._line([self._choice(end, self._spoken.finish_reason)])
        if with_usage:
            yield self._line([], usage=self._usage())
        yield b"data: [DONE]\n\n"

    def _choice(self, content: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, "finish_reason": finish_reason, "logprobs": None, **content}

    def _line(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = dict(self._head)
        if self._is_chat:
            head["object"] = "chat.completion.chunk"
        return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._spoken.prompt_tokens, self._spoken.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def read_question(body: Any, voice: Encodes, *, is_chat: bool) -> Question:
    """Raises BadRequest naming the field."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if body.get("n") not in (None, 1) or body.get("logprobs"):
        raise BadRequest("n > 1 and logprobs are not offered by this engine")
    prompt = _chat(body, voice) if is_chat else voice.encode(_prompt(body))
    room = voice.context_length - len(prompt)
    if room < 1 or not prompt:
        raise BadRequest(f"the prompt has {len(prompt)} tokens; between 1 and {voice.context_length - 1} fit")
    most = body.get("max_completion_tokens") or body.get("max_tokens") or Wanted().max_tokens
    stop = body.get("stop") or []
    wanted = Wanted(
        max_tokens=min(int(_number(most, "max_tokens", 1, 1 << 20)), room),
        temperature=_number(body.get("temperature", 1.0), "temperature", 0, 2),
        top_p=_number(body.get("top_p", 1.0), "top_p", 0, 1) or 1.0,
        seed=None if body.get("seed") is None else int(_number(body["seed"], "seed", 0, 1 << 63)),
        stop=[text for text in ([stop] if isinstance(stop, str) else stop) if isinstance(text, str) and text],
    )
    options = body.get("stream_options")
    with_usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
    stream = bool(body.get("stream"))
    return Question(is_chat=is_chat, prompt=prompt, wanted=wanted, stream=stream, with_usage=with_usage)


def _chat(body: dict[str, Any], voice: Encodes) -> list[int]:
    messages = _messages(body.get("messages"))
    try:
        return voice.encode_chat(messages)
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _messages(raw: Any) -> list[dict[str, str]]:
    if not isinstance(raw, list) or not raw:
        raise BadRequest("messages must be a list with at least one message")
    return [{"role": _role(message), "content": _content(message)} for message in raw]


def _role(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    if role == "developer":
        return "system"
    if role not in ("system", "user", "assistant"):
        raise BadRequest(f"a message's role must be system, user or assistant, not {role!r}")
    return str(role)


def _content(message: Any) -> str:
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise BadRequest("a message's content must be text")
    return content


def _prompt(body: dict[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be one text")
    return prompt


def _number(raw: Any, name: str, low: float, high: float) -> float:
    if raw is None or isinstance(raw, bool) or not isinstance(raw, (int, float)) or not low <= raw <= high:
        raise BadRequest(f"{name} must be a number from {low} to {high}")
    return float(raw)
