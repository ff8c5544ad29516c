"""Conversations out of JSON lines: every good line is kept, every bad one told by its number."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elias.adapters.sources.chat_jsonl import ChatJsonl
from elias.domain.session import Evidence, Session
from elias.errors import InputError
from elias.ports.source import Skipped, SourceContext

ASK = {"role": "user", "content": "ask"}
ANSWER = {"role": "assistant", "content": "answer"}


def read(context: SourceContext, file: Path, *lines: object) -> tuple[list[Session], list[Skipped]]:
    file = file / "chat.jsonl" if file.is_dir() else file
    file.write_bytes(b"\n".join(li if isinstance(li, bytes) else json.dumps(li).encode() for li in lines))
    items = list(ChatJsonl(context).read(file))
    return [i for i in items if isinstance(i, Session)], [i for i in items if isinstance(i, Skipped)]


def told(session: Session) -> list[tuple[str | None, str | None, str]]:
    return [(e.role, e.name, e.text) for e in session.events]


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [ASK, ANSWER]},
        [ASK, ANSWER],
        {"messages": [ASK, ANSWER, {"role": "user", "content": "never answered"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "sk"]}, ANSWER]},
    ],
)
def test_a_conversation_is_kept_up_to_its_last_answer(context: SourceContext, tmp_path: Path, line: Any) -> None:
    (session,), skipped = read(context, tmp_path, line)
    assert told(session) == [("user", None, "ask"), ("assistant", None, "answer")]
    assert not skipped


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [ASK], "chosen": "good", "rejected": "bad"},
        {"prompt": "ask", "chosen": "good", "rejected": "bad"},
        {"prompt": [ASK], "chosen": [{**ANSWER, "content": "good"}], "rejected": [{**ANSWER, "content": "bad"}]},
        {"chosen": [ASK, {**ANSWER, "content": "good"}], "rejected": [ASK, {**ANSWER, "content": "bad"}]},
        {
            "input": {"messages": [ASK]},
            "preferred_output": [{**ANSWER, "content": "good"}],
            "non_preferred_output": [{**ANSWER, "content": "bad"}],
        },
    ],
)
def test_each_usual_shape_of_a_preference_pair_is_read(context: SourceContext, tmp_path: Path, line: Any) -> None:
    (session,), _ = read(context, tmp_path, line)
    assert told(session) == [
        ("user", None, "ask"),
        ("assistant", "chosen", "good"),
        ("assistant", "rejected", "bad"),
    ]


def test_a_tool_call_becomes_text(context: SourceContext, tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "."}'}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    (session,), _ = read(context, tmp_path, [ASK, calling, {"role": "tool", "content": "a b"}, ANSWER])
    assert told(session)[1] == ("assistant", None, '<tool_call>ls({"path": "."})</tool_call>')


@pytest.mark.parametrize(
    ("mark", "passed", "total"),
    [({"thumbs": "up"}, 1, 1), ({"thumbs": False}, 0, 1), ({"reward": 0.25}, 250, 1000), ({"reward": 1}, 1000, 1000)],
)
def test_a_mark_is_evidence(context: SourceContext, tmp_path: Path, mark: Any, passed: int, total: int) -> None:
    (session,), _ = read(context, tmp_path, {"messages": [ASK, ANSWER], **mark})
    assert session.evidence == (Evidence(kind="marked", passed=passed, total=total),)


BAD: list[object] = [
    b"broken",
    b"\xff\xfe\xfd",
    b'{"messages": ' + b"[" * 100_000,
    b'{"messages": ' + b"9" * 5000 + b"}",
    b'"text"',
    {},
    {"messages": []},
    {"messages": {"role": "user"}},
    {"messages": [ASK]},
    {"messages": [ANSWER]},
    {"messages": ["hi", ANSWER]},
    {"messages": [ASK, {"role": "assistant"}]},
    {"messages": [ASK, {"role": "assistant", "content": "  "}]},
    {"messages": [ASK, {"role": "robot", "content": "x"}]},
    {"messages": [ASK, {"role": ["assistant"], "content": "x"}]},
    {"messages": [ASK, {"role": "assistant", "content": 5}]},
    {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": 5}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER]},
    b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}',
    {"messages": [{"role": "user", "content": "a\0b"}, ANSWER]},
    {"messages": [ASK, ANSWER], "reward": 4.5},
    b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}], "reward": NaN}',
    {"messages": [ASK, ANSWER], "thumbs": {}},
    {"messages": [ASK], "chosen": "same", "rejected": "same"},
    {"messages": [ASK], "chosen": "alone"},
    {"chosen": "no", "rejected": "prompt"},
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_line_is_told_with_its_number_and_the_others_are_kept(
    context: SourceContext, tmp_path: Path, bad: object
) -> None:
    sessions, (skipped,) = read(
        context, tmp_path, [ASK, ANSWER], b"", bad, {"messages": [ANSWER | {"role": "user"}, ANSWER]}
    )
    assert len(sessions) == 2
    assert skipped.where.endswith("chat.jsonl:3")
    assert skipped.why
    assert skipped.fix


def test_a_byte_order_mark_is_no_part_of_the_first_line(context: SourceContext, tmp_path: Path) -> None:
    sessions, skipped = read(context, tmp_path, b"\xef\xbb\xbf" + json.dumps([ASK, ANSWER]).encode())
    assert (len(sessions), skipped) == (1, [])


@pytest.mark.parametrize(("data", "word"), [(b"", "empty"), (b" \n\n", "empty"), ("x".encode("utf-16"), "UTF-16")])
def test_a_file_with_no_line_to_read_is_an_error(
    context: SourceContext, tmp_path: Path, data: bytes, word: str
) -> None:
    with pytest.raises(InputError, match=word):
        read(context, tmp_path, data)


def test_a_folder_and_nothing_are_errors(context: SourceContext, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere.jsonl"):
        with pytest.raises(InputError):
            list(ChatJsonl(context).read(place))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "chosen", "rejected", "tool_calls", "prompt", "reward", "type"]
            )
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(junk=st.lists(st.binary().map(lambda b: b.replace(b"\n", b"")) | JSON, max_size=5), count=st.integers(1, 3))
def test_whatever_lies_between_them_good_lines_are_kept(context: SourceContext, junk: list[Any], count: int) -> None:
    good = [{"messages": [{"role": "user", "content": f"good {n}"}, ANSWER]} for n in range(count)]
    mixed = [line for n in range(max(count, len(junk))) for line in (*good[n : n + 1], *junk[n : n + 1])]
    with tempfile.TemporaryDirectory() as folder:
        sessions, _ = read(context, Path(folder), *mixed)
    assert {s.events[0].text for s in sessions} >= {f"good {n}" for n in range(count)}


def test_a_line_that_breaks_off_says_in_which_column_it_does(context, tmp_path: Path) -> None:
    _, (skipped,) = read(context, tmp_path, b'{"messages": [\n')
    assert skipped.why.startswith("not JSON") and skipped.why.endswith("in column 15")
