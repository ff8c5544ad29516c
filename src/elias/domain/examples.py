"""How a session becomes an example to learn from, and what it weighs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from elias.domain.corpus import DocTest, Example, Message
from elias.domain.prompt import change_answer, change_prompt, code_answer, code_prompt
from elias.domain.session import REWARD_ONE_PPM, Event, Session

LEAST_WEIGHT_PPM = 250_000
_RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.", re.MULTILINE)


def example_of(session: Session, *, heldout: bool) -> Example | None:
    """None for a session without an answer, or whose every piece of evidence is against it."""
    weight = weight_ppm(session.reward_ppm)
    pair = _pair(session.events)
    messages = _messages(session)
    if not messages or not weight:
        return None
    return Example(
        id=session.id,
        session=session.id,
        source=session.source,
        messages=messages,
        weight_ppm=weight,
        stage=session.stage,
        chosen=pair[0] if pair else None,
        rejected=pair[1] if pair else None,
        doctest=_doctest(session.events) if heldout else None,
    )


def weight_ppm(reward: int | None) -> int:
    """A quarter for hardly any reward, rising to one; one where nothing was observed; nothing for no reward at all.

    In parts per million. What did not hold up in any way is no example to follow, and none to be measured by.
    """
    if reward is None:
        return REWARD_ONE_PPM
    return LEAST_WEIGHT_PPM + reward * (REWARD_ONE_PPM - LEAST_WEIGHT_PPM) // REWARD_ONE_PPM if reward else 0


def _messages(session: Session) -> tuple[Message, ...]:
    """By what the events are, not by where they come from: a new source needs nothing here."""
    spoken = [event for event in session.events if event.kind == "message"]
    if spoken:
        return _merged(spoken)
    task, solution = _text(session.events, "task"), _text(session.events, "solution")
    if not task or not solution:
        return ()
    if solution.startswith("diff --git "):
        files = (_text(session.events, "context") or "").split("\n")
        asked, answered = change_prompt(task, [name for name in files if name]), change_answer(solution)
    else:
        asked, answered = code_prompt(task), code_answer(solution)
    return Message(role="user", content=asked), Message(role="assistant", content=answered)


def _merged(spoken: Iterable[Event]) -> tuple[Message, ...]:
    """Turns that a chat template takes: what a tool said comes from the user's side, and sides alternate."""
    turns: list[Message] = []
    for event in spoken:
        role, text = event.role or "user", event.text
        if role == "tool":
            role, text = "user", f"<tool_result>{text}</tool_result>"
        if turns and turns[-1].role == role:
            turns[-1] = Message(role=role, content=f"{turns[-1].content}\n\n{text}")
        else:
            turns.append(Message(role=role, content=text))
    return tuple(turns)


def _pair(events: Iterable[Event]) -> tuple[str, str] | None:
    answers = {event.name: event.text for event in events if event.kind == "solution"}
    return (answers["chosen"], answers["rejected"]) if {"chosen", "rejected"} <= answers.keys() else None


def _doctest(events: tuple[Event, ...]) -> DocTest | None:
    tests = next((event for event in events if event.kind == "test"), None)
    task, solution, context = _text(events, "task"), _text(events, "solution"), _text(events, "context") or ""
    if tests is None or not tests.name or not task or not solution or _RELATIVE_IMPORT.search(context):
        return None
    first = next(line for line in solution.split("\n") if line.strip())
    indent = first[: len(first) - len(first.lstrip())]
    return DocTest(function=tests.name, before=context, signature=task, indent=indent)


def _text(events: Iterable[Event], kind: str) -> str | None:
    return next((event.text for event in events if event.kind == kind), None)
