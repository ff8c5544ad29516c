"""Where sessions come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from elias.domain.label import Label
from elias.domain.session import Session
from elias.units import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that could not be read; the rest goes on."""

    where: str
    """File and line."""
    why: str
    fix: str


class SessionSource(Protocol):
    def read(self, location: Path) -> Iterator[Session | Skipped]:
        """Everything at `location`, good and bad, in a stable order. Raises InputError when there is nothing."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceContext:
    clock: Clock
    label: Label
    stage: int | None


SourceFactory = Callable[[SourceContext], SessionSource]
"""What an `elias.sources` entry point names."""
