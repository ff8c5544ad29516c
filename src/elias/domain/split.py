"""Which sessions are held out: whole groups of like ones, chosen by their content alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from elias.domain.authorship import written_together
from elias.domain.session import Session

PPM = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    train: frozenset[str]
    heldout: frozenset[str]
    """Session ids. No task and no solution of one side is on the other, nor a function apart from its commit."""


def split(sessions: Sequence[Session], heldout_ppm: int) -> Split:
    """Sessions with the same task or the same solution are one group, and so are a function and a commit that wrote it;
    a group's hash says where it goes.

    The hash is of the group's smallest task, so that a session stays on its side as the corpus grows, unless a new one
    ties two groups together. A group of more than twice the share that is to be held out is trained on: a repository's
    first commit can tie most of it together. Where there are two groups or more, neither side is empty.
    """
    groups = _groups({session.id: _marks(session) for session in sessions}, written_together(sessions))
    ranked = sorted((_rank(marks), members) for marks, members in groups)
    largest = 2 * heldout_ppm * len(sessions) // PPM
    smallest = min((len(members), rank) for rank, members in ranked)[1] if ranked else 0
    eligible = [group for group in ranked if len(group[1]) <= largest or group[0] == smallest]
    bound = (heldout_ppm << 64) // PPM
    count = sum(rank < bound for rank, _ in eligible)
    if len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    held = frozenset(member for _, members in eligible[:count] for member in members)
    return Split(train=frozenset(session.id for session in sessions) - held, heldout=held)


def _marks(session: Session) -> tuple[str, ...]:
    """The task's first, where there is one, then the solution's; white space and case do not count."""
    if session.source == "git":
        # `wip` and `fix` are no task that two commits share; where a change stands in its file does not matter.
        diff = "\n".join(event.text for event in session.events if event.kind == "solution")
        return (_mark("change", "\n".join(line for line in diff.split("\n") if line[:1] in ("+", "-"))),)
    task = next((e.text for e in session.events if e.kind == "task" or e.role == "user"), "")
    solved = [e for e in session.events if e.kind == "solution" or e.role == "assistant"]
    last = next((e.text for e in reversed(solved)), "")
    return _mark("task", task), _mark("solution", last)


def _mark(kind: str, text: str) -> str:
    return hashlib.sha256(f"{kind}\0{' '.join(text.lower().split())}".encode()).hexdigest()


def _rank(marks: frozenset[str]) -> int:
    """Even over 0 to 2**64. Hashed once more, since the smallest of several hashes is not even."""
    return int(hashlib.sha256(min(marks).encode()).hexdigest()[:16], 16)


def _groups(
    marks: Mapping[str, Sequence[str]], ties: Iterable[tuple[str, str]]
) -> list[tuple[frozenset[str], tuple[str, ...]]]:
    """(the tasks' marks, the members in order) of each connected group: union-find over shared marks and ties."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for session, own in marks.items():
        for mark in own:
            parent[root(f"s{session}")] = root(mark)
    for one, other in ties:
        parent[root(f"s{one}")] = root(f"s{other}")
    members: dict[str, list[str]] = {}
    for session in sorted(marks):
        members.setdefault(root(f"s{session}"), []).append(session)
    return [(frozenset(marks[m][0] for m in group), tuple(group)) for group in members.values()]
