"""Commits out of a real repository, made here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from elias.adapters.sources.git import Git
from elias.adapters.sources.git_command import unquoted
from elias.domain.session import Evidence, Session
from elias.errors import InputError, MissingPackage
from elias.ports.source import Skipped, SourceContext


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        who = {f"GIT_{role}_{field}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
        when = {"GIT_AUTHOR_DATE": "1700000000 +0100", "GIT_COMMITTER_DATE": "1700000000 +0100"}
        done = subprocess.run(
            ["git", "-C", str(self.folder), "-c", "commit.gpgsign=false", *words],
            env={**os.environ, **who, **when},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, message: str, **files: str | bytes | None) -> str:
        return self.commit_files(message, {name.replace("_", "."): data for name, data in files.items()})

    def commit_files(self, message: str, files: dict[str, str | bytes | None]) -> str:
        for name, data in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data if isinstance(data, bytes) else data.encode())
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def read(
    context: SourceContext, repository: Repository | Path, **options: object
) -> tuple[list[Session], list[Skipped]]:
    folder = repository if isinstance(repository, Path) else repository.folder
    items = list(Git(context, **options).read(folder))  # type: ignore[arg-type]
    return [i for i in items if isinstance(i, Session)], [i for i in items if isinstance(i, Skipped)]


def test_a_commit_is_its_message_its_files_and_its_change(context: SourceContext, repository: Repository) -> None:
    commit = repository.commit("Add a\n\nBecause.", a_py="1\n2\n")
    (session,), skipped = read(context, repository)
    assert [(e.kind, e.text) for e in session.events] == [
        ("task", "Add a\n\nBecause."),
        ("context", "a.py"),
        (
            "solution",
            "diff --git a/a.py b/a.py\nnew file mode 100644\n--- /dev/null\n+++ b/a.py\n@@ -0,0 +1,2 @@\n+1\n+2\n",
        ),
    ]
    assert session.title == "Add a"
    assert session.taken_at.timestamp() == 1700000000
    assert session.origin == {"path": str(repository.folder), "commit": commit}
    assert not skipped


def test_what_survived_to_head_is_the_evidence(context: SourceContext, repository: Repository) -> None:
    repository.commit("One", a_py="1\n2\n3\n4\n")
    repository.commit("Two", a_py="1\nx\n3\n4\n5\n")
    repository.git("mv", "a.py", "b.py")
    repository.commit("Rename")
    repository.commit("Gone", b_py="1\nx\n3\n4\n", z_txt="z\n")
    repository.commit("Drop z", z_txt=None)
    found = {s.title: s.evidence for s in read(context, repository)[0]}
    assert found == {
        "One": (Evidence(kind="lines_survived", passed=3, total=4),),
        "Two": (Evidence(kind="lines_survived", passed=1, total=2),),
        "Rename": (),
        "Gone": (Evidence(kind="lines_survived", passed=0, total=1),),
        "Drop z": (),
    }


def test_binary_lock_generated_and_huge_files_are_left_out_and_said(
    context: SourceContext, repository: Repository
) -> None:
    files: dict[str, str | bytes | None] = {
        "a.py": "1\n",
        "logo.png": b"\0\1\2",
        "package-lock.json": "{}\n",
        "app.min.js": "x\n",
        "vendor/lib.py": "x\n",
        "latin.txt": b"caf\xe9\n",
        "long.py": "x\n" * 1000,
        "wide.py": "x" * 5000 + "\n",
    }
    repository.commit_files("Much", files)
    (session,), _ = read(context, repository)
    assert session.events[1].text == "a.py"
    said = session.origin["left_out"]
    assert all(name in said for name in files if name != "a.py")


def test_merges_empty_commits_and_silent_ones_are_not_tasks(context: SourceContext, repository: Repository) -> None:
    repository.commit("Base", a_py="1\n")
    repository.commit("Nothing")
    repository.git("checkout", "-q", "-b", "side")
    repository.commit("Side", b_py="1\n")
    repository.git("checkout", "-q", "main")
    repository.commit("", c_py="1\n")
    repository.git("merge", "-q", "-m", "Merge", "side")
    sessions, skipped = read(context, repository)
    assert {s.title for s in sessions} == {"Base", "Side"}
    assert sorted(s.why for s in skipped) == ["it changes no file", "it has no message, so there is no task"]


def test_odd_names_and_text_that_looks_like_git_itself_come_through(
    context: SourceContext, repository: Repository
) -> None:
    name = 'sp ace\t"quote" é\n.py'
    tricky = "commit\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n"
    repository.commit_files("commit\n\ndiff --git a/x b/x\n@@ -1 +1 @@", {name: tricky})
    (session,), _ = read(context, repository)
    assert session.events[1].text == name
    assert session.events[2].text.endswith("".join(f"+{line}\n" for line in tricky.splitlines()))
    assert session.evidence == (Evidence(kind="lines_survived", passed=5, total=5),)


def test_a_limit_takes_the_newest(context: SourceContext, repository: Repository) -> None:
    for number in range(4):
        repository.commit(f"Number {number}", a_py=f"{number}\n")
    assert [s.title for s in read(context, repository, limit=2)[0]] == ["Number 3", "Number 2"]
    with pytest.raises(InputError, match="since"):
        read(context, repository, since="2024-01-01")


def test_a_folder_inside_and_a_bare_clone_give_the_same_sessions(
    context: SourceContext, repository: Repository
) -> None:
    repository.commit_files("One", {"in/a.py": "1\n", "b.py": "2\n"})
    repository.git("clone", "-q", "--bare", ".", "bare")
    expected = [(s.id, s.evidence) for s in read(context, repository)[0]]
    for folder in (repository.folder / "in", repository.folder / "bare"):
        assert [(s.id, s.evidence) for s in read(context, folder)[0]] == expected


def test_the_repositorys_own_configuration_neither_runs_nor_changes_anything(
    context: SourceContext, repository: Repository, tmp_path: Path
) -> None:
    repository.commit_files("One", {"a.py": "def f():\n    return 1\n", ".gitattributes": "*.py diff=evil\n"})
    repository.commit("Two", a_py="def f():\n    return 2\n")
    clean = [s.id for s in read(context, repository)[0]]
    evil = tmp_path / "evil.sh"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    evil.chmod(0o755)
    for name, value in {
        "core.fsmonitor": str(evil),
        "core.pager": str(evil),
        "diff.external": str(evil),
        "diff.evil.textconv": str(evil),
        "diff.evil.command": str(evil),
        "gpg.program": str(evil),
        "log.showSignature": "true",
        "diff.noprefix": "true",
        "diff.context": "9",
        "diff.algorithm": "patience",
        "color.ui": "always",
        "core.hooksPath": str(tmp_path),
    }.items():
        repository.git("config", name, value)
    sessions, _ = read(context, repository)
    assert [s.id for s in sessions] == clean
    assert all(s.evidence for s in sessions)
    assert not (tmp_path / "ran").exists()


def test_git_variables_of_the_caller_do_not_point_elsewhere(
    context: SourceContext, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit("One", a_py="1\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert len(read(context, repository)[0]) == 1


def test_no_repository_no_commit_and_no_folder_are_errors_with_a_fix(
    context: SourceContext, repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()
    for place in (tmp_path / "plain", tmp_path / "file", tmp_path / "nowhere", repository.folder):
        with pytest.raises(InputError) as caught:
            read(context, place)
        assert caught.value.fix


def test_without_git_it_says_what_to_install(
    context: SourceContext, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPackage, match="git is not installed"):
        read(context, repository)


def test_a_repository_that_breaks_half_way_keeps_what_was_read(context: SourceContext, repository: Repository) -> None:
    repository.commit("Old", a_py="1\n")
    tree = repository.git("rev-parse", "HEAD^{tree}")
    repository.commit("Middle", a_py="2\n", b_py="1\n")
    repository.commit("New", c_py="3\n")
    repository.commit("Newest", c_py="4\n")
    (repository.folder / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    sessions, skipped = read(context, repository)
    assert [s.title for s in sessions] == ["Newest"]
    assert any("fsck" in s.fix for s in skipped)


def test_a_quoted_name_is_read_back() -> None:
    assert unquoted(b'"a\\303\\251\\t\\"\\\\"') == 'aé\t"\\'.encode()
    assert unquoted(b"plain") == b"plain"
