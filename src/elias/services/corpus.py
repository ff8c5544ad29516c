"""Builds a corpus of sessions, keeps it under its digest, and gives it out again."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from elias.domain.corpus import Corpus, Example, example_from_line, example_line
from elias.domain.examples import example_of
from elias.domain.label import Label, strictest
from elias.domain.session import Session
from elias.domain.split import PPM, split
from elias.errors import DigestMismatch, InputError
from elias.ports.stores import BlobStore, CorpusStore, SessionStore
from elias.units import Clock
from elias_trainer.contract import Digest, canonical_json

CORPUS_SCHEMA = "elias.corpus/1"
IN_MEMORY_BYTES = 16 << 20


class Part(StrEnum):
    TRAIN = "train"
    HELDOUT = "heldout"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which sessions, and how many of them are kept back to be measured by."""

    heldout_share: float = 0.1
    sources: tuple[str, ...] = ()
    """Empty takes all."""
    label_at_most: Label = Label.SECRET
    sessions: frozenset[str] | None = None
    """Exactly these; None takes all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Materialized:
    """Verified files to read, never to write."""

    corpus: Corpus
    train: Path
    heldout: Path


class Corpora:
    def __init__(
        self,
        sessions: SessionStore,
        corpora: CorpusStore,
        blobs: BlobStore,
        clock: Clock,
        *,
        secret_blobs: BlobStore | None = None,
    ) -> None:
        """`secret_blobs` never leaves this machine, and `blobs` can read it; None is `blobs`, where that does not."""
        self._sessions = sessions
        self._secret_blobs = secret_blobs or blobs
        self._corpora = corpora
        self._blobs = blobs
        self._clock = clock

    def build(self, choice: Choice, tell: Callable[[str], None] = lambda line: None) -> Corpus:
        """The same sessions give the same digest on every machine; `tell` hears what was left out and why.

        Raises InputError when a side would be empty.
        """
        if not 0 < choice.heldout_share < 1:
            raise InputError(
                f"a held-out share of {choice.heldout_share} leaves nothing to train on, or to measure by",
                fix="give --heldout-share a number between 0 and 1, such as 0.1",
            )
        chosen = self._chosen(choice, tell)
        sides = split(chosen, round(choice.heldout_share * PPM))
        label = strictest(session.label for session in chosen)
        blobs = self._secret_blobs if label is Label.SECRET else self._blobs
        train, counted_train = _written(blobs, chosen, sides.train, heldout=False)
        heldout, counted_heldout = _written(blobs, chosen, sides.heldout, heldout=True)
        manifest = canonical_json({"schema": CORPUS_SCHEMA, "label": label, "train": train, "heldout": heldout})
        corpus = Corpus(
            digest=blobs.put(io.BytesIO(manifest)),
            label=label,
            train=train,
            heldout=heldout,
            train_examples=counted_train["examples"],
            heldout_examples=counted_heldout["examples"],
            preference_pairs=counted_train["pairs"],
            sessions=len(chosen),
            by_source=dict(sorted(Counter(session.source for session in chosen).items())),
            built_at=self._clock.now(),
        )
        self._corpora.add(corpus)
        return corpus

    def get(self, corpus: str) -> Corpus:
        """By digest, a prefix of its hex, or `latest`. Raises NotFound."""
        return self._corpora.get(corpus)

    def list(self) -> tuple[Corpus, ...]:
        """Newest first."""
        return tuple(self._corpora.list())

    def materialize(self, corpus: str) -> Materialized:
        """Raises NotFound, or DigestMismatch naming the file that has changed."""
        found = self._corpora.get(corpus)
        self._check_manifest(found)
        return Materialized(corpus=found, train=self._blobs.path(found.train), heldout=self._blobs.path(found.heldout))

    def open(self, corpus: str, part: Part) -> BinaryIO:
        """Verified bytes of one side: canonical JSON lines. Raises as `materialize` does."""
        found = self._corpora.get(corpus)
        self._check_manifest(found)
        return self._blobs.open(found.train if part is Part.TRAIN else found.heldout)

    def examples(self, corpus: str, part: Part) -> Iterator[Example]:
        with self.open(corpus, part) as stream:
            yield from map(example_from_line, stream)

    def _chosen(self, choice: Choice, tell: Callable[[str], None]) -> tuple[Session, ...]:
        """In order of id, without those that no example can be made of."""
        every = [
            session
            for session in self._sessions.select()
            if (choice.sessions is None or session.id in choice.sessions)
            and (not choice.sources or session.source in choice.sources)
            and session.label.strictness <= choice.label_at_most.strictness
        ]
        usable = tuple(session for session in every if example_of(session, heldout=False) is not None)
        if len(usable) < 2:
            raise _too_few(len(every), len(usable))
        if left_out := len(every) - len(usable):
            tell(f"left out {left_out:,} sessions: no answer in them, or nothing of it held up (reward 0)")
        return usable

    def _check_manifest(self, corpus: Corpus) -> None:
        """A database row that names other files than the digest stands for is refused."""
        with self._blobs.open(corpus.digest) as stream:
            manifest = json.load(stream)
        row = {"schema": CORPUS_SCHEMA, "label": corpus.label, "train": corpus.train, "heldout": corpus.heldout}
        if manifest != row:
            raise DigestMismatch(
                f"the database's record of corpus {corpus.digest.short} names other files than its digest stands for",
                kept="the files themselves are as they were",
                fix="elias corpus build makes it again",
            )


def _written(
    blobs: BlobStore, chosen: Iterable[Session], side: frozenset[str], *, heldout: bool
) -> tuple[Digest, Counter[str]]:
    """The side's lines in order of id, as one blob; a large one waits on the disk."""
    counted: Counter[str] = Counter()
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as lines:
        for session in chosen:
            example = example_of(session, heldout=heldout) if session.id in side else None
            if example is not None:
                counted["examples"] += 1
                counted["pairs"] += example.chosen is not None
                lines.write(example_line(example))
        if not counted["examples"]:
            raise InputError(
                "all sessions share a task or a solution, so none can be held out from the others",
                fix="capture more that differ: elias capture code PATH",
            )
        lines.seek(0)
        return blobs.put(lines), counted  # type: ignore[arg-type]  # it is a BinaryIO in all but name


def _too_few(found: int, usable: int) -> InputError:
    if not found:
        return InputError(
            "no session to build a corpus of, with these choices",
            fix="capture some (elias capture code PATH), or choose fewer limits (elias session list)",
        )
    if not usable:
        return InputError(
            f"none of {found} sessions can be learned from: no answer in them, or their evidence is all against them",
            fix="capture more: elias capture code PATH",
        )
    return InputError(
        "one session alone cannot be split into a side to train on and one to measure by",
        fix="capture more: elias capture code PATH",
    )
