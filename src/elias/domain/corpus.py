"""Room 2. A corpus: examples made of sessions, split and weighted, in canonical bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from elias.domain.label import Label
from elias_trainer.contract import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DocTest:
    """How a generated body is checked: `before` + signature + body, then the doctests of `function` run."""

    function: str
    """Dotted name inside the module, as `Class.method` or `function`."""
    before: str
    """What the function needs to run: imports and names it uses, found in its own module."""
    signature: str
    """The `def` line up to and including the docstring."""
    indent: str
    """Of the body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One line of a corpus file. Either the last message is the answer, or `chosen` and `rejected` hold two."""

    id: str
    session: str
    source: str
    messages: tuple[Message, ...]
    """For sft the last one is the assistant's; for a preference pair, the prompt alone."""
    weight_ppm: int = 1_000_000
    """Share of the loss, in parts per million of a plain example."""
    stage: int | None = None
    chosen: str | None = None
    rejected: str | None = None
    doctest: DocTest | None = None
    """Held-out code only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    digest: Digest
    """Of the manifest: schema, label, and the digest of each file below."""
    label: Label
    """The strictest of its sessions."""
    train: Digest
    """The training examples, a blob of canonical JSON lines."""
    heldout: Digest
    train_examples: int
    heldout_examples: int
    preference_pairs: int
    sessions: int
    by_source: Mapping[str, int]
    built_at: datetime
    """Not part of the digest."""
