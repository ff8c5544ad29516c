"""Room 3. Spans of time, or of anything else that has an order: both ends given, the first one included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar


class Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...

    def __le__(self, other: Any, /) -> bool: ...


At = TypeVar("At", bound=Ordered)


def without(spans: Iterable[tuple[At, At]], taken: Sequence[tuple[At, At]]) -> Iterator[tuple[At, At]]:
    """What is left of the spans; those taken are in order of their beginnings, and may overlap."""
    for opens, closes in spans:
        at = opens
        for begins, ends in taken:
            if ends <= at or closes <= begins:
                continue
            if at < begins:
                yield at, begins
            at = ends
        if at < closes:
            yield at, closes
