"""What one line of a chat file says, in the shapes that OpenAI, TRL and their like write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elias.domain.corpus import Message
from elias.domain.session import Evidence

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_PAIRS = (("chosen", "rejected"), ("preferred_output", "non_preferred_output"))
_THUMBS: Mapping[object, int] = {"up": 1, "down": 0, True: 1, False: 0, "+1": 1, "-1": 0, -1: 0}
REWARD_STEPS = 1000


class BadConversation(Exception):
    """Why a line is not one; `fix` where it is another than the usual."""

    def __init__(self, why: str, fix: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.fix = fix


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    """Up to the last answer; of a preference pair, the prompt alone."""
    answers: tuple[str, str] | None
    """Chosen and rejected."""
    evidence: tuple[Evidence, ...]


def conversation(raw: Any) -> Conversation:
    """Raises BadConversation."""
    fields: Mapping[str, Any] = {"messages": raw} if isinstance(raw, list) else raw
    if not isinstance(fields, dict):
        raise BadConversation(f"holds {_kind(raw)}, not a conversation")
    evidence = _evidence(fields)
    for chosen, rejected in _PAIRS:
        if fields.get(chosen) is not None or fields.get(rejected) is not None:
            return _pair(fields, (chosen, rejected), evidence)
    messages = _messages(_prompt(fields), "messages")
    while messages and messages[-1].role != "assistant":
        messages.pop()  # nobody answered what came after
    _check(messages)
    if not messages[-1].content.strip():
        raise BadConversation("the last answer is empty")
    return Conversation(messages=tuple(messages), answers=None, evidence=evidence)


def _prompt(fields: Mapping[str, Any]) -> Any:
    nested = fields.get("input")
    found = fields.get("messages", nested.get("messages") if isinstance(nested, dict) else fields.get("prompt"))
    if found is None:
        raise BadConversation(f"has no `messages`; its fields are {', '.join(sorted(map(repr, fields))[:6]) or 'none'}")
    return [{"role": "user", "content": found}] if isinstance(found, str) else found


def _pair(fields: Mapping[str, Any], names: tuple[str, str], evidence: tuple[Evidence, ...]) -> Conversation:
    sides = [_side(fields.get(name), name) for name in names]
    shared = 0
    while shared < min(map(len, sides)) - 1 and sides[0][shared] == sides[1][shared]:
        shared += 1
    has_prompt = any(name in fields for name in ("messages", "prompt", "input"))
    prompt = _messages(_prompt(fields), "messages") if has_prompt else []
    if prompt and prompt[-1].role == "assistant":
        prompt.pop()  # one of the two answers again
    whole = [side[len(prompt) :] if side[: len(prompt)] == prompt else side for side in sides]
    if not prompt:
        prompt, whole = sides[0][:shared], [side[shared:] for side in sides]
    if any(len(side) != 1 or side[0].role != "assistant" or not side[0].content.strip() for side in whole):
        raise BadConversation(f"`{names[0]}` and `{names[1]}` must each end in one answer to the same prompt")
    if not prompt or prompt[0].role == "assistant":
        raise BadConversation("a preference pair without the prompt that both answer")
    if whole[0] == whole[1]:
        raise BadConversation(f"`{names[0]}` and `{names[1]}` are the same")
    return Conversation(messages=tuple(prompt), answers=(whole[0][0].content, whole[1][0].content), evidence=evidence)


def _side(raw: Any, name: str) -> list[Message]:
    if isinstance(raw, str):
        return [Message(role="assistant", content=_text(raw))]
    return _messages([raw] if isinstance(raw, dict) else raw, name)


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise BadConversation("no answer by the assistant")
    if next((m.role for m in messages if m.role != "system"), None) == "assistant":
        raise BadConversation("begins with the assistant's answer, before anyone asked")


def _messages(raw: Any, name: str) -> list[Message]:
    if not isinstance(raw, list) or not raw:
        raise BadConversation(f"`{name}` is {_kind(raw)}, not a list of messages")
    return [_message(item, number) for number, item in enumerate(raw, start=1)]


def _message(raw: Any, number: int) -> Message:
    if not isinstance(raw, dict):
        raise BadConversation(f"message {number} is {_kind(raw)}, not an object with `role` and `content`")
    role = raw.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadConversation(
            f"message {number} has the role {role!r}", fix="a role is system, user, assistant or tool"
        )
    content = _content(raw.get("content"), number)
    calls = raw.get("tool_calls") or ([raw["function_call"]] if raw.get("function_call") else [])
    if not isinstance(calls, list):
        raise BadConversation(f"`tool_calls` of message {number} is {_kind(calls)}, not a list")
    parts = [part for part in (content, *(_call(call, number) for call in calls)) if part]
    if not parts and raw.get("content") is None:
        raise BadConversation(f"message {number} has no `content`")
    return Message(role=_ROLES[role], content="\n".join(parts))


def _content(raw: Any, number: int) -> str:
    if raw is None or isinstance(raw, str):
        return _text(raw or "")
    if not isinstance(raw, list):
        raise BadConversation(f"`content` of message {number} is {_kind(raw)}, not text")
    return "".join(_part(part, number) for part in raw)


def _part(raw: Any, number: int) -> str:
    if isinstance(raw, str):
        return _text(raw)
    kind = raw.get("type", "text") if isinstance(raw, dict) else _kind(raw)
    words = raw.get("text", raw.get("refusal")) if isinstance(raw, dict) else None
    if kind not in ("text", "input_text", "output_text", "refusal") or not isinstance(words, str):
        raise BadConversation(
            f"message {number} holds a part of type {kind!r}", fix="only text can be trained on: leave this line out"
        )
    return _text(words)


def _call(raw: Any, number: int) -> str:
    """A call as the text a model would write for it."""
    call = raw.get("function", raw) if isinstance(raw, dict) else None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise BadConversation(f"message {number} has a tool call without a function's name")
    arguments = call.get("arguments", "")
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, sort_keys=True)
    return _text(f"<tool_call>{call['name']}({shown})</tool_call>")


def _text(text: str) -> str:
    """Raises BadConversation for what cannot be written as UTF-8 again, or kept in every database."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadConversation("holds half of a surrogate pair", fix="write the character whole, as \\ud83d\\ude00")
    if "\0" in text:
        raise BadConversation("holds a NUL character", fix="take \\u0000 out of the text")
    return text


def _evidence(fields: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """`thumbs` (up, down, true, false) or `reward` (0 to 1), as the person or program who marked it left it."""
    if fields.get("thumbs") is not None:
        mark = fields["thumbs"]
        if not isinstance(mark, str | bool | int) or mark not in _THUMBS:
            raise BadConversation(f"`thumbs` is {mark!r}", fix='write "thumbs": "up" or "thumbs": "down"')
        return (Evidence(kind="marked", passed=_THUMBS[mark], total=1),)
    reward = fields.get("reward")
    if reward is None:
        return ()
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0 <= reward <= 1:
        raise BadConversation(f"`reward` is {reward!r}", fix="a reward is a number from 0 to 1")
    return (Evidence(kind="marked", passed=round(reward * REWARD_STEPS), total=REWARD_STEPS),)


def _kind(raw: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(raw), "a number")
