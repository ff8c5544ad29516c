"""Which commit wrote which function: both are one piece of work, and must not stand on both sides of a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from elias.domain.session import Session

WRITTEN_PERCENT = 60
"""Of a function's telling lines, docstring and signature among them, that a commit must add to have written it."""
_TELLING_LETTERS = 4
"""Letters and digits that a line needs to tell anything: `)` or `x = 1` stand everywhere."""


def written_together(sessions: Sequence[Session]) -> Iterator[tuple[str, str]]:
    """(session of a function, session of a commit that wrote it), by their text alone, wherever they were captured.

    White space, case and where a line stands do not count, so that moved and indented code is still known.
    """
    functions = {s.id: lines for s in sessions if s.source == "code" and len(lines := _function_lines(s)) > 1}
    wanted = frozenset().union(*functions.values())
    commits = _commits_by_line(sessions, wanted) if wanted else {}
    for function, lines in functions.items():
        hits = Counter(commit for line in lines for commit in commits.get(line, ()))
        yield from ((function, commit) for commit, count in hits.items() if 100 * count >= WRITTEN_PERCENT * len(lines))


def _function_lines(session: Session) -> frozenset[str]:
    texts = (event.text for event in session.events if event.kind in ("task", "solution"))
    return frozenset(plain for text in texts for line in text.split("\n") if (plain := _plain(line)))


def _commits_by_line(sessions: Sequence[Session], wanted: frozenset[str]) -> Mapping[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for session in sessions:
        if session.source != "git":
            continue
        for event in session.events:
            for line in event.text.split("\n") if event.kind == "solution" else ():
                if line[:1] == "+" and (plain := _plain(line[1:])) in wanted:
                    found[plain].add(session.id)
    return found


def _plain(line: str) -> str:
    """Empty for a line that tells nothing."""
    plain = " ".join(line.lower().split())
    return plain if sum(map(str.isalnum, plain)) >= _TELLING_LETTERS else ""
