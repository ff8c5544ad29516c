"""The program git, run so that a hostile repository cannot make it run anything else."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from elias.errors import InputError, MissingPackage

_NEVER = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.pager": "cat",
    "core.bigFileThreshold": "1m",
    "core.quotePath": "true",
    "diff.external": "",
    "diff.orderFile": os.devnull,
    "diff.suppressBlankEmpty": "false",
    "log.showSignature": "false",
    "log.mailmap": "false",
    "blame.ignoreRevsFile": "",
}
"""Set for each command: what would start a program of the repository's choosing, or change what is printed."""
_BLAME_HEADER = re.compile(rb"([0-9a-f]{40,64}) \d+ \d+ (\d+)")
BLAME_WITHIN_S = 60.0


class GitFailed(Exception):
    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class GitCommand:
    """Raises MissingPackage where there is no git."""

    def __init__(self, repository: Path) -> None:
        program = shutil.which("git")
        if program is None:
            raise MissingPackage("the program git is not installed", fix="apt install git, or https://git-scm.com")
        if not repository.is_dir():
            what = "is a file" if repository.exists() else "is not there"
            raise InputError(f"{repository} {what}", fix="give the folder of a git repository")
        settings = [word for name, value in _NEVER.items() for word in ("-c", f"{name}={value}")]
        self._words = [program, "--no-pager", "--no-replace-objects", *settings, "-C", str(repository)]
        self._repository = repository

    def head(self) -> str:
        """The commit HEAD stands for. Raises InputError for what is no repository, or has no commit yet."""
        shown = shlex.quote(str(self._repository))
        try:
            self.output(["rev-parse", "--git-dir"])
        except GitFailed as error:
            if "dubious ownership" in error.said:
                fix = f"git clone {shown} MINE, and capture that: git does not trust another user's folder"
                raise InputError(f"{self._repository} belongs to another user", fix=fix) from error
            raise InputError(
                f"{self._repository} is not a git repository: {error.said}",
                fix=f"give a folder made by git clone or git init; for plain Python files: elias capture code {shown}",
            ) from error
        try:
            return self.output(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).decode("ascii").strip()
        except GitFailed as error:
            raise InputError(f"{self._repository} has no commit yet", fix="commit something, then capture") from error

    def files(self, commit: str) -> Iterator[str]:
        """Paths in that commit, those that are not UTF-8 left out."""
        for name in self.output(["ls-tree", "-r", "-z", "--name-only", "--full-tree", commit]).split(b"\0"):
            try:
                yield name.decode("utf-8")
            except UnicodeDecodeError:
                continue

    def blame(self, commit: str, path: str) -> Iterator[tuple[str, str, int]]:
        """(commit, path in it, how many lines of `path` are from there), in runs of lines."""
        words = ["-C", self._top, "blame", "--no-textconv", "--incremental", commit, "--", path]
        found: tuple[str, int] | None = None
        for line in self.output(words, within_s=BLAME_WITHIN_S).split(b"\n"):
            if header := _BLAME_HEADER.fullmatch(line):
                found = (header[1].decode("ascii"), int(header[2]))
            elif line.startswith(b"filename ") and found is not None:
                yield found[0], unquoted(line.removeprefix(b"filename ")).decode("utf-8", "replace"), found[1]

    def output(self, words: Sequence[str], *, within_s: float | None = 60.0) -> bytes:
        """All it says. Raises GitFailed with git's own first line."""
        try:
            done = subprocess.run(
                [*self._words, *words],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GitFailed(f"git {words[0]} took longer than {within_s} s") from error
        if done.returncode:
            raise GitFailed(_first_line(done.stderr) or f"git {words[0]} ended with {done.returncode}")
        return done.stdout

    def lines(self, words: Sequence[str]) -> Iterator[bytes]:
        """Line by line as it says them, each with its end. Raises GitFailed at the end."""
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [*self._words, *words],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as running,
        ):
            assert running.stdout is not None
            try:
                yield from running.stdout
            except GeneratorExit:
                running.kill()
                raise
            if running.wait():
                errors.seek(0)
                raise GitFailed(_first_line(errors.read()) or f"git {words[0]} ended with {running.returncode}")

    @cached_property
    def _top(self) -> str:
        """`blame` reads a path from where it stands; a bare repository stands at its top already."""
        up = self.output(["rev-parse", "--show-cdup"]).decode("utf-8", "surrogateescape").strip()
        return up or "."


def unquoted(name: bytes) -> bytes:
    """A path as git prints it, in C quotes where it holds anything odd."""
    if not (name.startswith(b'"') and name.endswith(b'"')):
        return name
    plain = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 255]) if code.isdigit() else plain.get(code, code)

    return re.sub(rb"\\([0-7]{3}|.)", one, name[1:-1], flags=re.DOTALL)


def _environment() -> dict[str, str]:
    """The user's own, without what would point git elsewhere; no transport may be used, so nothing is fetched."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith("GIT_CONFIG")}
    return kept | {
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _first_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[0].removeprefix("fatal: ") if lines else ""
