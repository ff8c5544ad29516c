"""Takes sessions in: what a source reads is kept, and whatever could not be read is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elias.domain.session import Session
from elias.errors import InputError
from elias.ports.source import SessionSource, Skipped
from elias.ports.stores import SessionStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    seen: int
    """Sessions read."""
    new: int
    """Those of them that were not known."""
    skipped: tuple[Skipped, ...]
    sessions: tuple[str, ...]
    """Ids of all that were read, known or not, in the source's order."""

    def require_some(self, location: Path) -> None:
        """Raises InputError when nothing at all was good."""
        if self.seen:
            return
        first = self.skipped[0] if self.skipped else None
        raise InputError(
            f"nothing in {location} could be captured"
            + (f"; {first.where}: {first.why}" if first else "")
            + (f" (and {len(self.skipped) - 1} more)" if len(self.skipped) > 1 else ""),
            fix=first.fix if first else "give a place that holds sessions of this kind",
        )


class Capture:
    def __init__(self, source: SessionSource, store: SessionStore) -> None:
        self._source = source
        self._store = store

    def take(self, location: Path) -> Captured:
        """Keep what is there; the same again adds nothing. Raises InputError where there is nothing to read."""
        skipped: list[Skipped] = []
        sessions: list[str] = []

        def good() -> Iterator[Session]:
            for item in self._source.read(location):
                if isinstance(item, Skipped):
                    skipped.append(item)
                else:
                    sessions.append(item.id)
                    yield item

        new = self._store.add(good())
        return Captured(seen=len(sessions), new=new, skipped=tuple(skipped), sessions=tuple(sessions))
