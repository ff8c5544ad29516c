"""Capturing twice adds nothing; what could not be read is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elias.config import Config
from elias.domain.label import Label
from elias.errors import InputError
from elias.services.capture import Capture
from elias.wiring.capture import make_capture
from elias.wiring.corpus import corpus_from_data, sources_of
from elias.wiring.stores import Stores, open_stores

CHAT = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "answer %s"}]}\n'


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "home")


@pytest.fixture
def stores(config: Config) -> Iterator[Stores]:
    config.home.mkdir()
    with open_stores(config) as opened:
        yield opened


@pytest.fixture
def capture(config: Config, stores: Stores) -> Capture:
    return make_capture(config, stores, "chat")


def test_the_same_again_adds_nothing(capture: Capture, stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(CHAT % (1, 1) + CHAT % (2, 2) + CHAT % (1, 1))
    first, second = capture.take(file), capture.take(file)
    assert (first.seen, first.new, second.seen, second.new) == (2, 2, 2, 0)
    assert sorted(first.sessions) == [session.id for session in stores.sessions.select()]
    assert {session.label for session in stores.sessions.select()} == {Label.PRIVATE}


def test_a_label_that_a_person_set_stays(capture: Capture, stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(CHAT % (1, 1))
    (session,) = capture.take(file).sessions
    stores.sessions.set_label(session, Label.SECRET)
    capture.take(file)
    assert stores.sessions.get(session).label is Label.SECRET


def test_bad_lines_are_told_and_a_file_of_them_is_an_error(capture: Capture, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text("bad\n" + CHAT % (1, 1))
    captured = capture.take(file)
    captured.require_some(file)
    assert [skipped.where for skipped in captured.skipped] == [f"{file}:1"]
    file.write_text("bad\nworse\n")
    with pytest.raises(InputError, match="and 1 more"):
        capture.take(file).require_some(file)


def test_a_stage_beyond_four_is_refused(config: Config, stores: Stores) -> None:
    with pytest.raises(InputError, match="no stage 5"):
        make_capture(config, stores, "chat", stage=5)


def test_any_path_becomes_a_corpus_of_its_own_sessions(config: Config, stores: Stores, tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text("".join(CHAT % (n, n) for n in range(5)))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "m.py").write_text("".join(f'def f{n}():\n    """Doc {n}."""\n    return {n}\n' for n in range(4)))
    assert corpus_from_data(config, stores, file).by_source == {"chat": 5}
    assert corpus_from_data(config, stores, tree).by_source == {"code": 4}
    assert corpus_from_data(config, stores, tree / "m.py").sessions == 4


def test_what_a_path_looks_like_decides_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "x.csv").touch()
    assert sources_of(tmp_path) == ("git", "code")
    (tmp_path / "c.jsonl").touch()
    assert sources_of(tmp_path / "c.jsonl") == ("chat",)
    with pytest.raises(InputError, match="none of the things"):
        sources_of(tmp_path / "x.csv")


def test_data_that_is_not_there_is_an_error(config: Config, stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        corpus_from_data(config, stores, tmp_path / "nowhere")
