"""From files to an exported corpus, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elias.cli.shell import run_command

CODE = "".join(
    f'def f{n}(x):\n    """Add {n}.\n\n    >>> f{n}(0)\n    {n}\n    """\n    return x + {n}\n' for n in range(8)
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def elias(line: str) -> int:
    words = line.split()
    return run_command("elias", words[0], words[0], words[1:])


def test_the_walk_from_a_source_tree_to_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.py").write_text(CODE)
    (tmp_path / "bad.py").write_text("def f(:")
    assert elias(f"capture code {tmp_path} --label shared --stage 2") == 0
    said = capsys.readouterr()
    assert said.out.startswith("8 new code sessions from")
    assert "skipped bad.py:1: not Python" in said.err
    assert elias(f"capture code {tmp_path} --json") == 0
    assert json.loads(capsys.readouterr().out)["new"] == 0
    assert elias("session list --json") == 0
    ids = [session["id"] for session in json.loads(capsys.readouterr().out)]
    assert elias(f"session label {ids[0]} {ids[1][:10]} public") == 0
    assert capsys.readouterr().out == "2 sessions are public now\n"
    assert elias(f"session show {ids[0][:10]}") == 0
    assert "label     public\nstage     2\n" in capsys.readouterr().out
    assert elias("session label --source code shared") == 0
    assert capsys.readouterr().out == "2 sessions are shared now\n"
    assert elias("corpus build --heldout-share 0.4 --json") == 0
    corpus = json.loads(capsys.readouterr().out)
    assert (corpus["label"], corpus["sessions"]) == ("shared", 8)
    for command in ("corpus list", "corpus show", f"corpus show {corpus['digest'][7:15]}"):
        assert elias(command) == 0
        assert corpus["digest"][7:19] in capsys.readouterr().out
    assert elias(f"corpus export --split heldout --format jsonl --out {tmp_path}/held.jsonl") == 0
    lines = (tmp_path / "held.jsonl").read_text().splitlines()
    assert len(lines) == corpus["heldout_examples"]
    assert all(json.loads(line)["doctest"]["function"].startswith("f") for line in lines)
    assert "is shared" in capsys.readouterr().err


def test_an_exported_corpus_can_be_captured_as_conversations(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "m.py").write_text(CODE)
    assert elias(f"capture code {tmp_path}") == 0
    assert elias("corpus build") == 0
    capsysbinary.readouterr()
    assert elias("corpus export") == 0
    (tmp_path / "out.jsonl").write_bytes(capsysbinary.readouterr().out)
    assert elias(f"capture chat {tmp_path}/out.jsonl") == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("capture code nowhere", 2),
        ("capture git nowhere", 2),
        ("capture chat nowhere", 2),
        ("capture chat bad.jsonl", 2),
        ("capture code . --stage 9", 2),
        ("capture code . --label loud", 2),
        ("session show nobody", 3),
        ("session label nobody public", 3),
        ("session label public", 2),
        ("corpus show", 3),
        ("corpus export --format parquet", 2),
        ("corpus build", 2),
    ],
)
def test_bad_input_has_its_exit_code_and_a_fix(
    line: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text("bad\n")
    assert elias(line) == code
    said = capsys.readouterr().err
    assert "fix: " in said or "Usage: " in said


def test_an_export_to_a_place_that_is_none_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.py").write_text(CODE)
    assert elias(f"capture code {tmp_path}") == 0
    assert elias("corpus build") == 0
    assert elias(f"corpus export --out {tmp_path}/no/where.jsonl") == 2
    assert elias(f"corpus export --out {tmp_path}") == 2
    assert "mkdir -p" in capsys.readouterr().err
