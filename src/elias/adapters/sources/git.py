"""Sessions out of a git repository: a commit's message is the task, its change the solution, and what is left of it
in HEAD the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from elias.adapters.sources.git_change import Change, FileChange, changes
from elias.adapters.sources.git_command import GitCommand, GitFailed
from elias.domain.session import Event, Evidence, Session, session_id
from elias.errors import InputError
from elias.ports.source import Skipped, SourceContext

DEFAULT_LIMIT = 2000
LONGEST_MESSAGE_CHARS = 8000


class Git:
    """The newest `limit` commits that are no merges, back to `since` (anything that `git log --since` takes)."""

    def __init__(self, context: SourceContext, *, limit: int = DEFAULT_LIMIT, since: str | None = None) -> None:
        if limit < 1:
            raise InputError(f"{limit} commits are none", fix="give --limit 1 or more")
        self._context = context
        self._limit = limit
        self._since = since

    def read(self, location: Path) -> Iterator[Session | Skipped]:
        git = GitCommand(location)
        head = git.head()
        taken: list[Change] = []
        broken = ""
        try:
            for change in changes(git, head, limit=self._limit, since=self._since):
                if why := _why_not(change):
                    yield Skipped(where=f"commit {change.commit[:12]}", why=why, fix="nothing to do")
                else:
                    taken.append(change)
        except GitFailed as error:
            broken = f": {error.said}"
            yield Skipped(where=str(location), why=error.said, fix=f"git -C {location} fsck; what was readable is kept")
        if not taken:
            raise InputError(
                f"{location} has no commit to learn from" + (f" since {self._since}" if self._since else "") + broken,
                fix="capture a repository whose commits change text files, or reach further back with --since",
            )
        survivors, lost = _survivors(git, head, taken)
        yield from lost
        for change in taken:
            yield self._session(change, survivors, location)

    def _session(self, change: Change, survivors: dict[tuple[str, str], int], location: Path) -> Session:
        events = (
            Event(kind="task", text=change.message),
            Event(kind="context", text="\n".join(file.path for file in change.files)),
            Event(kind="solution", text="".join(file.text for file in change.files)),
        )
        origin = {"path": str(location.absolute()), "commit": change.commit}
        if change.left_out:
            origin["left_out"] = "; ".join(change.left_out)
        return Session(
            id=session_id("git", events),
            source="git",
            title=_title(change.message),
            taken_at=self._instant(change.authored_s),
            events=events,
            evidence=_evidence(change, survivors),
            origin=origin,
            stage=self._context.stage,
            label=self._context.label,
        )

    def _instant(self, seconds: int) -> datetime:
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            return self._context.clock.now()


def _why_not(change: Change) -> str | None:
    if not change.message.strip():
        return "it has no message, so there is no task"
    if len(change.message) > LONGEST_MESSAGE_CHARS:
        return f"its message is longer than {LONGEST_MESSAGE_CHARS:,} characters"
    if not change.files:
        return f"all of it was left out: {'; '.join(change.left_out)}" if change.left_out else "it changes no file"
    return None


def _title(message: str) -> str:
    first = "".join(c if c.isprintable() else " " for c in message.strip().split("\n", 1)[0])
    return first if len(first) <= 72 else first[:71] + "…"


def _survivors(
    git: GitCommand, head: str, taken: Sequence[Change]
) -> tuple[dict[tuple[str, str], int], Sequence[Skipped]]:
    """(commit, path in that commit) -> its lines still in HEAD; one blame for each file that is still there."""
    counts: dict[tuple[str, str], int] = {}
    lost: list[Skipped] = []
    there = set(git.files(head))
    interesting = {change.commit for change in taken}
    touched = {file.path for change in taken for file in change.files}
    for path in sorted(touched & there):
        try:
            for commit, origin, lines in git.blame(head, path):
                if commit in interesting:
                    counts[commit, origin] = counts.get((commit, origin), 0) + lines
        except GitFailed as error:
            lost.append(Skipped(where=path, why=f"no evidence: {error.said}", fix="nothing to do"))
    return counts, lost


def _evidence(change: Change, survivors: dict[tuple[str, str], int]) -> tuple[Evidence, ...]:
    """None for a commit that adds no lines: there is nothing that could have survived."""
    added = sum(file.added for file in change.files)
    if not added:
        return ()
    survived = sum(_left(change, file, survivors) for file in change.files)
    return (Evidence(kind="lines_survived", passed=survived, total=added),)


def _left(change: Change, file: FileChange, survivors: dict[tuple[str, str], int]) -> int:
    # Blame may find another of several equal diffs than log did, so that it can count a line more than was added.
    return min(file.added, survivors.get((change.commit, file.path), 0))
