"""Sessions out of a JSON-lines file of conversations: OpenAI messages, and preference pairs in the usual shapes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elias.adapters.sources.chat_message import BadConversation, Conversation, conversation
from elias.domain.session import Event, Session, session_id
from elias.errors import InputError
from elias.ports.source import Skipped, SourceContext

_SHAPE = 'write one {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]} a line'
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"


class ChatJsonl:
    """One conversation a line; a line that is not one is reported by its number, and the others are kept."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    def read(self, location: Path) -> Iterator[Session | Skipped]:
        taken_at = self._written_at(location)
        lines = seen = 0
        ids: set[str] = set()
        for number, line in _lines(location):
            lines += 1
            try:
                session = self._session(_parsed(line), location, number, taken_at)
            except BadConversation as error:
                yield Skipped(where=f"{location}:{number}", why=error.why, fix=error.fix or _SHAPE)
                continue
            seen += 1
            if session.id not in ids:
                ids.add(session.id)
                yield session
        if not lines:
            raise InputError(f"{location} is empty", fix=_SHAPE)

    def _session(self, raw: Any, location: Path, number: int, taken_at: datetime) -> Session:
        chat = conversation(raw)
        events = tuple(_events(chat))
        return Session(
            id=session_id("chat", events),
            source="chat",
            title=_title(chat),
            taken_at=taken_at,
            events=events,
            evidence=chat.evidence,
            origin={"path": str(location.absolute()), "line": str(number)},
            stage=self._context.stage,
            label=self._context.label,
        )

    def _written_at(self, location: Path) -> datetime:
        try:
            return datetime.fromtimestamp(int(location.stat().st_mtime), UTC)
        except FileNotFoundError as error:
            raise InputError(f"{location} is not there", fix="give the path of a .jsonl file") from error
        except OSError as error:
            raise InputError(f"{location}: {error.strerror}", fix=f"chmod u+r {shlex.quote(str(location))}") from error


def _events(chat: Conversation) -> Iterator[Event]:
    for message in chat.messages:
        yield Event(kind="message", role=message.role, text=message.content)
    if chat.answers is not None:
        yield Event(kind="solution", role="assistant", name="chosen", text=chat.answers[0])
        yield Event(kind="solution", role="assistant", name="rejected", text=chat.answers[1])


def _title(chat: Conversation) -> str:
    asked = next((m.content for m in chat.messages if m.role == "user"), chat.messages[0].content)
    words = " ".join("".join(c if c.isprintable() else " " for c in asked[:400]).split())
    return words if len(words) <= 72 else words[:71] + "…"


def _lines(location: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, numbered from 1. Raises InputError for what has no such lines."""
    quoted = shlex.quote(str(location))
    if location.is_dir():
        raise InputError(f"{location} is a folder", fix=f"give a file in it: ls {quoted}/*.jsonl")
    try:
        with location.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1 and line.startswith(_WIDE):
                    raise InputError(
                        f"{location} is UTF-16, not UTF-8", fix=f"iconv -f UTF-16 -t UTF-8 {quoted} > chat.jsonl"
                    )
                text = line.removeprefix(_BOM) if number == 1 else line
                if text.strip():
                    yield number, text
    except OSError as error:
        raise InputError(f"{location}: {error.strerror}", fix=f"chmod u+r {quoted}") from error


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8").rstrip("\r\n"))  # so that what breaks off does so in this line
    except UnicodeDecodeError as error:
        raise BadConversation(
            f"not UTF-8: byte 0x{line[error.start]:02x} in column {error.start + 1}",
            fix="iconv -f ISO-8859-1 -t UTF-8 makes it so, if that is what it was written in",
        ) from error
    except json.JSONDecodeError as error:
        fix = None
        if line.strip() in (b"[", b"{") or line.startswith((b" ", b"\t")):
            fix = "one object a line: jq -c '.[]' FILE > FILE.jsonl makes it so from an array"
        raise BadConversation(f"not JSON: {error.msg} in column {error.pos + 1}", fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise BadConversation("not JSON that can be read: a number or its nesting is out of bounds") from error
