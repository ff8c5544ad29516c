"""Which documents share a sequence."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Groups of indexes, none longer than `capacity` together: the longest first, each into the fullest that takes it.

    Best-fit decreasing (Johnson 1974) needs at most 11/9 of the fewest groups. Each group is in ascending order, and
    the groups are in the order of their first member: the same lengths give the same answer everywhere.
    """
    groups: list[list[int]] = []
    room: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"document {index} has {length} tokens, a sequence holds {capacity}")
        found = bisect_left(room, (length, 0))
        if found < len(room):
            left, group = room.pop(found)
            groups[group].append(index)
        else:
            left, group = capacity, len(groups)
            groups.append([index])
        insort(room, (left - length, group))
    return sorted(sorted(group) for group in groups)
