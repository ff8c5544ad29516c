"""Data labels: how far a session, and all that is made of it, may travel."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Label(StrEnum):
    """From the most open to the strictest."""

    PUBLIC = "public"
    """Anyone may see it."""
    SHARED = "shared"
    """May go, readable, to a place that the user rents or is lent."""
    PRIVATE = "private"
    """May leave this machine only encrypted. The default."""
    SECRET = "secret"
    """Never leaves this machine."""

    @property
    def strictness(self) -> int:
        return list(Label).index(self)


def strictest(labels: Iterable[Label]) -> Label:
    """The label of a thing made from things with these labels; `public` when there are none."""
    return max(labels, key=lambda label: label.strictness, default=Label.PUBLIC)
