"""Corpora: the same sessions give the same bytes, like sessions stay on one side, bad input is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elias.adapters.blobs import FileBlobs
from elias.adapters.clock import SystemClock
from elias.config import Config
from elias.domain.corpus import Example, Message, example_from_line, example_line
from elias.domain.examples import example_of, weight_ppm
from elias.domain.label import Label
from elias.domain.prompt import body_of
from elias.domain.session import Event, Evidence, Session, session_id
from elias.domain.split import split
from elias.errors import DigestMismatch, InputError, NotFound
from elias.services.corpus import Choice, Corpora, Part
from elias.wiring.stores import Stores, open_stores

GOLDEN_DIGEST = "sha256:9ad5af3724dbbde980639e18dbf4a20d3d7709d3e44f4b71014639de87418354"


def session(source: str, events: Iterable[Event], **more: object) -> Session:
    kept = tuple(events)
    fields = {"title": "t", "taken_at": datetime(2026, 1, 1, tzinfo=UTC), "origin": {}, **more}
    return Session(id=session_id(source, kept), source=source, events=kept, **fields)  # type: ignore[arg-type]


def code(number: int | str, body: str | None = None, **more: object) -> Session:
    events = [
        Event(kind="context", text="import math\n", name=f"f{number}"),
        Event(kind="task", text=f'def f{number}(x):\n    """Add {number}."""\n', name=f"f{number}"),
        Event(kind="solution", text=body or f"    return x + {number}\n", name=f"f{number}"),
        Event(kind="test", text=f">>> f{number}(0)\n{number}\n", name=f"f{number}"),
    ]
    return session("code", events, **more)


def chat(number: int, **more: object) -> Session:
    events = [
        Event(kind="message", role="user", text=f"ask {number}"),
        Event(kind="message", role="assistant", text=f"answer {number}"),
    ]
    return session("chat", events, **more)


def pair(number: int) -> Session:
    events = [
        Event(kind="message", role="user", text=f"choose {number}"),
        Event(kind="solution", role="assistant", name="chosen", text=f"good {number}"),
        Event(kind="solution", role="assistant", name="rejected", text=f"bad {number}"),
    ]
    return session("chat", events)


def change(number: int) -> Session:
    diff = f"diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -{number} +{number} @@\n-x\n+y{number}\n"
    events = [
        Event(kind="task", text="Fix é"),
        Event(kind="context", text="a"),
        Event(kind="solution", text=diff),
    ]
    return session("git", events, evidence=(Evidence(kind="lines_survived", passed=1, total=2),))


EVERY = [*map(code, range(12)), *map(chat, range(6)), *map(pair, range(3)), *map(change, range(6))]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(Config(home=tmp_path)) as opened:
        yield opened


@pytest.fixture
def corpora(stores: Stores, tmp_path: Path) -> Corpora:
    return Corpora(stores.sessions, stores.corpora, FileBlobs(tmp_path / "blobs"), SystemClock())


def test_these_sessions_have_this_digest_on_every_machine(stores: Stores, corpora: Corpora) -> None:
    stores.sessions.add(reversed(EVERY))
    corpus = corpora.build(Choice(heldout_share=0.3))
    assert corpus.digest == GOLDEN_DIGEST
    assert corpora.build(Choice(heldout_share=0.3)).digest == GOLDEN_DIGEST
    pairs = [example for example in corpora.examples(corpus.digest, Part.TRAIN) if example.rejected]
    assert (corpus.sessions, corpus.preference_pairs) == (27, len(pairs)) and 0 < len(pairs) <= 3
    assert corpus.train_examples + corpus.heldout_examples == 27
    assert corpus.by_source == {"chat": 9, "code": 12, "git": 6}


def test_an_export_is_canonical_lines_in_order_of_id(stores: Stores, corpora: Corpora) -> None:
    stores.sessions.add(EVERY)
    digest = corpora.build(Choice(heldout_share=0.3)).digest
    for part in Part:
        with corpora.open(digest, part) as stream:
            lines = stream.read().splitlines(keepends=True)
        examples = [example_from_line(line) for line in lines]
        assert [example_line(example) for example in examples] == lines
        assert [example.id for example in examples] == sorted(example.id for example in examples)
        assert not any(b"null" in line for line in lines)
        assert any(example.doctest for example in examples) is (part is Part.HELDOUT)


def test_a_line_of_code_looks_like_this() -> None:
    example = example_of(code(7, stage=3), heldout=True)
    assert example is not None
    assert json.loads(example_line(example)) == {
        "id": example.session,
        "session": example.session,
        "source": "code",
        "stage": 3,
        "weight_ppm": 1_000_000,
        "messages": [
            {
                "role": "user",
                "content": "Complete this Python function. Answer with its body alone, in a code block.\n\n"
                '```python\ndef f7(x):\n    """Add 7."""\n```',
            },
            {"role": "assistant", "content": "```python\n    return x + 7\n```"},
        ],
        "doctest": {
            "function": "f7",
            "before": "import math\n",
            "signature": 'def f7(x):\n    """Add 7."""\n',
            "indent": "    ",
        },
    }


def test_a_doctest_runs_on_the_body_that_the_answer_holds() -> None:
    example = example_of(code(7), heldout=True)
    assert example is not None
    assert example.doctest is not None
    check, space = example.doctest, {}
    exec(check.before + check.signature + body_of(example.messages[-1].content, check.indent), space)
    assert space["f7"](1) == 8


def test_tools_speak_from_the_users_side_and_sides_alternate() -> None:
    spoken = [("user", "a"), ("assistant", "b"), ("tool", "c"), ("user", "d"), ("assistant", "e")]
    example = example_of(session("chat", [Event(kind="message", role=r, text=t) for r, t in spoken]), heldout=False)
    assert example is not None
    assert example.messages[2] == Message(role="user", content="<tool_result>c</tool_result>\n\nd")
    assert [message.role for message in example.messages] == ["user", "assistant", "user", "assistant"]


def test_the_reward_is_the_weight_and_no_reward_leaves_out() -> None:
    assert [weight_ppm(r) for r in (None, 0, 1, 500_000, 1_000_000)] == [1_000_000, 0, 250_000, 625_000, 1_000_000]
    assert example_of(chat(1, evidence=(Evidence(kind="marked", passed=0, total=1),)), heldout=False) is None


def test_what_is_left_out_is_told(stores: Stores, corpora: Corpora) -> None:
    told: list[str] = []
    stores.sessions.add([*EVERY, chat(99, evidence=(Evidence(kind="marked", passed=0, total=1),))])
    assert corpora.build(Choice(), tell=told.append).sessions == 27
    assert told == ["left out 1 sessions: no answer in them, or nothing of it held up (reward 0)"]


def test_the_strictest_label_of_its_sessions_is_its_own(stores: Stores, corpora: Corpora) -> None:
    stores.sessions.add([code(1, label=Label.PUBLIC), code(2, label=Label.SHARED), code(3, label=Label.SECRET)])
    assert corpora.build(Choice()).label is Label.SECRET
    limited = corpora.build(Choice(label_at_most=Label.SHARED))
    assert (limited.label, limited.sessions) == (Label.SHARED, 2)


def test_only_the_chosen_sources_and_sessions_are_in_it(stores: Stores, corpora: Corpora) -> None:
    stores.sessions.add(EVERY)
    assert corpora.build(Choice(sources=("git", "code"))).by_source == {"code": 12, "git": 6}
    some = frozenset(s.id for s in EVERY[:4])
    assert corpora.build(Choice(sessions=some)).sessions == 4


@pytest.mark.parametrize(
    ("sessions", "choice", "word"),
    [
        ([], Choice(), "no session"),
        (EVERY, Choice(sources=("nobody",)), "no session"),
        (EVERY[:1], Choice(), "one session alone"),
        ([code(1, "    return 1\n"), code(2, "    return 1\n")], Choice(), "share a task or a solution"),
        ([chat(1, evidence=(Evidence(kind="marked", passed=0, total=1),))], Choice(), "none of 1"),
        (EVERY, Choice(heldout_share=0.0), "held-out share"),
        (EVERY, Choice(heldout_share=1.0), "held-out share"),
        (EVERY, Choice(heldout_share=float("nan")), "held-out share"),
    ],
)
def test_what_cannot_become_a_corpus_is_told_with_its_fix(
    stores: Stores, corpora: Corpora, sessions: list[Session], choice: Choice, word: str
) -> None:
    stores.sessions.add(sessions)
    with pytest.raises(InputError, match=word) as caught:
        corpora.build(choice)
    assert caught.value.fix
    assert not corpora.list()


def test_a_flipped_byte_in_a_corpus_is_refused_naming_the_file(stores: Stores, corpora: Corpora) -> None:
    stores.sessions.add(EVERY)
    corpus = corpora.build(Choice())
    files = corpora.materialize("latest")
    for path in (files.train, files.heldout, files.train.parent.parent / corpus.digest.hex[:2] / corpus.digest.hex):
        good = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        with pytest.raises(DigestMismatch, match=path.name):
            corpora.materialize(corpus.digest.hex[:8])
        path.write_bytes(good)
    corpora.materialize("latest")


def test_no_corpus_is_not_found(corpora: Corpora) -> None:
    with pytest.raises(NotFound):
        corpora.materialize("latest")


def test_like_sessions_are_never_on_both_sides() -> None:
    copies = [code(n, "    return  SAME\n" if n % 2 else "    return same\n") for n in range(20)]
    versions = [code("v", f"    return {n}\n") for n in range(20)]
    for group in (copies, versions):
        sides = split([*group, *EVERY], 300_000)
        ids = {s.id for s in group}
        assert ids <= sides.train or ids <= sides.heldout


def commit(number: int, *added: str) -> Session:
    diff = "".join(f"+{line}\n" for text in added for line in text.split("\n"))
    events = [Event(kind="task", text=f"commit {number}"), Event(kind="solution", text=f"@@ -0,0 +1 @@\n{diff}")]
    return session("git", events)


def text_of(function: Session, indent: str = "") -> str:
    lines = "".join(e.text for e in function.events if e.kind in ("task", "solution")).split("\n")
    return "\n".join(indent + line for line in lines)


@pytest.mark.parametrize("ppm", [100_000, 300_000, 500_000])
def test_a_function_and_the_commits_that_wrote_it_are_on_one_side(ppm: int) -> None:
    functions = [code(n, f"    total = x + {n}\n    return total * {n}\n") for n in range(40)]
    wrote = [commit(n, text_of(function)) for n, function in enumerate(functions)]
    moved = [commit(100 + n, "class Adder:", text_of(function, "    ")) for n, function in enumerate(functions)]
    sides = split([*functions, *wrote, *moved, *EVERY], ppm)
    for trio in zip(functions, wrote, moved, strict=True):
        assert len({session.id in sides.heldout for session in trio}) == 1
    assert any(function.id in sides.heldout for function in functions)
    assert sides == split([*EVERY, *moved, *wrote, *functions], ppm)


def test_a_commit_that_shares_only_common_lines_is_not_tied() -> None:
    functions = [code(n, f"    if x is None:\n        return None\n    return x + {n}\n") for n in range(30)]
    shared = commit(1, "    if x is None:", "        return None", "    )")
    sides = split([*functions, shared], 300_000)
    assert {function.id in sides.heldout for function in functions} == {True, False}


def test_a_first_commit_that_wrote_nearly_all_is_trained_on_whatever_its_hash() -> None:
    functions = [code(n) for n in range(50)]
    for number in range(12):
        first = commit(number, *map(text_of, functions))
        sides = split([first, *functions, *map(chat, range(10))], 100_000)
        assert first.id in sides.train and {function.id for function in functions} <= sides.train
        assert sides.heldout


@given(st.permutations(EVERY), st.integers(1, 999_999))
@settings(max_examples=50)
def test_the_split_does_not_depend_on_order_and_covers_all(order: list[Session], ppm: int) -> None:
    sides = split(order, ppm)
    assert sides == split(EVERY, ppm)
    assert sides.train | sides.heldout == {s.id for s in EVERY}
    assert not sides.train & sides.heldout
    assert sides.train
    assert sides.heldout


@given(st.integers(2, len(EVERY)))
def test_more_sessions_move_nobody_to_the_other_side(count: int) -> None:
    few, all_of_them = split(EVERY[:count], 500_000), split(EVERY, 500_000)
    if len(few.heldout) > 1 and len(few.train) > 1:
        assert few.heldout <= all_of_them.heldout
        assert few.train <= all_of_them.train


def test_about_as_many_are_held_out_as_was_asked() -> None:
    held = len(split([code(n) for n in range(2000)], 100_000).heldout)
    assert 140 < held < 260


@given(
    st.builds(
        Example,
        id=st.text(),
        session=st.text(),
        source=st.text(),
        messages=st.lists(st.builds(Message, role=st.text(), content=st.text())).map(tuple),
        weight_ppm=st.integers(0, 10**6),
        stage=st.none() | st.integers(1, 4),
        chosen=st.none() | st.text(),
        rejected=st.none() | st.text(),
    )
)
def test_a_line_is_an_example_and_back(example: Example) -> None:
    assert example_from_line(example_line(example)) == example


@pytest.mark.parametrize("line", [b"{}", b"[]", b"x", b"\xff", b'{"messages": [{}]}', b'{"messages": 3}'])
def test_what_is_no_line_of_a_corpus_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="not an example"):
        example_from_line(line)
