"""Room 2. A corpus: examples made of sessions, split and weighted, in canonical bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from elias.domain.label import Label
from elias_trainer.contract import Digest, canonical_json


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
    """Of the training examples."""
    sessions: int
    by_source: Mapping[str, int]
    built_at: datetime
    """Not part of the digest."""


def example_line(example: Example) -> bytes:
    """One line of a corpus file: canonical JSON without what is absent, ended by a newline."""
    fields = {name: value for name, value in dataclasses.asdict(example).items() if value is not None}
    return canonical_json(fields) + b"\n"


def example_from_line(line: bytes) -> Example:
    """The inverse of `example_line`. Raises ValueError saying what is wrong with the line."""
    try:
        raw = json.loads(line)
        messages = tuple(Message(**message) for message in raw.pop("messages"))
        doctest = raw.pop("doctest", None)
        return Example(messages=messages, doctest=DocTest(**doctest) if doctest else None, **raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not an example of a corpus: {error}") from error
