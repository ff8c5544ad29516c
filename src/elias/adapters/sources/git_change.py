"""A commit's change, cut out of `git log -p` while it streams by, within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import PurePosixPath

from elias.adapters.sources.git_command import GitCommand, unquoted

MOST_FILE_LINES = 400
MOST_CHANGE_LINES = 1200
LONGEST_LINE_BYTES = 2000

_LOCKS = frozenset(
    {
        *("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock"),
        *("poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "requirements.lock"),
        *("Cargo.lock", "go.sum", "composer.lock", "Gemfile.lock", "mix.lock", "flake.lock", "Podfile.lock"),
    }
)
_GENERATED = ("*.min.js", "*.min.css", "*.map", "*_pb2.py", "*_pb2_grpc.py", "*.pb.go", "*.g.dart", "*.snap", "*.svg")
_GENERATED_FOLDERS = frozenset({"node_modules", "dist", "vendor", "third_party", "__pycache__", ".venv"})
_HUNK = re.compile(rb"(@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@)")
_LOG = [
    *("log", "-p", "--no-merges", "--root", "--no-decorate", "--no-notes", "--encoding=UTF-8"),
    *("--no-show-signature", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative"),
    *("--diff-algorithm=myers", "--indent-heuristic", "--unified=3", "--inter-hunk-context=0", "-M50%", "-l1000"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ignore-submodules=all", "--full-index"),
    "--format=commit%x00%H%x00%at%x00%B%x00",
]
"""All that a configuration could change is given, so that a commit has the same change on every machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileChange:
    path: str
    """After the change; before it, for a file that was deleted."""
    text: str
    """A unified diff, with neither object ids nor the heading after a hunk's `@@`."""
    added: int
    """Lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    commit: str
    authored_s: int
    """Seconds since 1970."""
    message: str
    files: tuple[FileChange, ...]
    left_out: tuple[str, ...]
    """Files that are not in `files`, each with why."""


def changes(git: GitCommand, head: str, *, limit: int, since: str | None) -> Iterator[Change]:
    """Newest first. Raises GitFailed where git broke off; the last change may not be whole, and is lost."""
    words = [*_LOG, f"--max-count={limit}", *([f"--since={since}"] if since else []), head, "--"]
    lines = git.lines(words)
    header: bytes | None = None
    draft: _Draft | None = None
    for line in lines:
        # No line of a diff begins like this: each has its own first character or header word, and no header has a NUL.
        if header is None and line.startswith(b"commit\0"):
            if draft:
                yield draft.finished()
            header = line
        elif header is not None:
            header += line
        if header is not None:
            if header.count(b"\0") == 4:
                draft, header = _Draft.begun(header), None
        elif draft:
            draft.take(line)
    if draft:
        yield draft.finished()


@dataclass(kw_only=True, slots=True)
class _Draft:
    """A change while its lines come in; a file's lines are dropped as soon as it is too long."""

    commit: str
    authored_s: int
    message: str
    files: list[FileChange] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    head: list[bytes] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    why: str | None = None
    in_hunk: bool = False
    lines: int = 0

    @classmethod
    def begun(cls, header: bytes) -> _Draft:
        _, commit, authored, message, _ = header.split(b"\0")
        text = message.decode("utf-8", "replace").replace("\r\n", "\n").strip()
        return cls(commit=commit.decode("ascii"), authored_s=int(authored or b"0"), message=text)

    def take(self, line: bytes) -> None:
        if line.startswith(b"diff --git "):
            self._close()
            self.head.append(line)
        elif not self.head:
            return  # the empty line between message and diff
        elif line.startswith(b"@@ "):
            self.in_hunk = True
            found = _HUNK.match(line)
            self._add((found[1] if found else line.rstrip(b"\n")) + b"\n")
        elif self.in_hunk:
            self._add(line)
        else:
            self.head.append(line)

    def finished(self) -> Change:
        self._close()
        return Change(
            commit=self.commit,
            authored_s=self.authored_s,
            message=self.message,
            files=tuple(self.files),
            left_out=tuple(self.left_out),
        )

    def _add(self, line: bytes) -> None:
        if len(self.body) >= MOST_FILE_LINES:
            self.why = f"more than {MOST_FILE_LINES} lines"
        elif len(line) > LONGEST_LINE_BYTES:
            self.why = "a line too long for people"
        if not self.why:
            self.body.append(line)

    def _close(self) -> None:
        """The file whose lines came in is whole: it is kept, or left out with its reason."""
        if not self.head:
            return
        path = _path(self.head).decode("utf-8", "backslashreplace")
        why = self.why or _why_left_out(path, self.head)
        if not why and self.lines + len(self.body) > MOST_CHANGE_LINES:
            why = f"the change is longer than {MOST_CHANGE_LINES:,} lines"
        try:
            text = b"".join([*_kept_headers(self.head), *self.body]).decode("utf-8")
        except UnicodeDecodeError:
            text, why = "", why or "not UTF-8"
        if "\0" in text:
            why = why or "binary"
        if why:
            self.left_out.append(f"{path} ({why})")
        else:
            self.lines += len(self.body)
            added = sum(line.startswith(b"+") for line in self.body)
            self.files.append(FileChange(path=path, text=text, added=added))
        self.head, self.body, self.why, self.in_hunk = [], [], None, False


def _why_left_out(path: str, head: Iterable[bytes]) -> str | None:
    name = PurePosixPath(path)
    if name.name in _LOCKS:
        return "a lock file"
    if any(fnmatch(name.name, pattern) for pattern in _GENERATED) or _GENERATED_FOLDERS & set(name.parts[:-1]):
        return "generated"
    for line in head:
        if line.startswith((b"Binary files ", b"GIT binary patch")):
            return "binary"
        if line.endswith(b" 160000\n"):
            return "a submodule"
    return None


def _kept_headers(head: Iterable[bytes]) -> Iterator[bytes]:
    """Without object ids, which nobody can foretell."""
    return (line for line in head if not line.startswith((b"index ", b"similarity index ", b"dissimilarity index ")))


def _path(head: list[bytes]) -> bytes:
    """The new name, else the old one; where neither is given (a mode change, a binary file) the first line's."""
    for prefix in (b"+++ ", b"rename to ", b"copy to ", b"--- "):
        for line in head[1:]:
            if line.startswith(prefix):
                name = unquoted(line.removeprefix(prefix).rstrip(b"\n").rstrip(b"\t"))
                if name != b"/dev/null":
                    return name[2:] if prefix in (b"+++ ", b"--- ") else name
    both = head[0].removeprefix(b"diff --git ").rstrip(b"\n")
    if both.startswith(b'"'):
        return unquoted(both[: len(both) // 2])[2:]
    return both[: len(both) // 2][2:]  # `a/NAME b/NAME`: two halves of one length around a space
