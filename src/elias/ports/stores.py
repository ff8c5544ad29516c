"""Where nouns are kept. Every write is one transaction and safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from elias.domain.artifact import Artifact
from elias.domain.corpus import Corpus
from elias.domain.deployment import Deployment
from elias.domain.label import Label
from elias.domain.run import Run, Segment
from elias.domain.session import Session
from elias.domain.spend import Account, Caps, Claim, Entry, Part, Usage
from elias.domain.verdict import Verdict
from elias.units import Money
from elias_trainer.contract import Digest


class SessionStore(Protocol):
    def add(self, sessions: Iterable[Session]) -> int:
        """Keep those not yet known, renew the evidence of those that are; how many were new.

        Label and stage of a known session stay as the user set them.
        """
        ...

    def get(self, session: str) -> Session:
        """By id or by a prefix that only one has. Raises NotFound."""
        ...

    def select(self, *, source: str | None = None, label: Label | None = None) -> Iterator[Session]:
        """In order of id, so that whoever reads them all reads them in the same order everywhere."""
        ...

    def set_label(self, session: str, label: Label) -> None:
        """Raises NotFound."""
        ...


class BlobStore(Protocol):
    """Files under their own digest; on every read the bytes are compared with it."""

    def put(self, data: BinaryIO) -> Digest:
        """Whole or not at all; the same bytes twice are kept once."""
        ...

    def open(self, digest: Digest) -> BinaryIO:
        """Raises NotFound, or DigestMismatch when the bytes have changed since."""
        ...

    def path(self, digest: Digest) -> Path:
        """A verified file to read, never to write. Raises as `open` does."""
        ...


class CorpusStore(Protocol):
    def add(self, corpus: Corpus) -> None: ...

    def get(self, corpus: str) -> Corpus:
        """By digest, by a prefix of its hex that only one has, or `latest`. Raises NotFound."""
        ...

    def list(self) -> Sequence[Corpus]:
        """Newest first."""
        ...


class RunStore(Protocol):
    def add(self, run: Run) -> None:
        """Of no effect when a run with this id is there."""
        ...

    def get(self, run: str) -> Run:
        """By id or by a prefix that only one has. Raises NotFound."""
        ...

    def list(self) -> Sequence[Run]:
        """Newest first."""
        ...

    def update(self, run: str, **changes: Any) -> Run:
        """Set fields of a run; a final state is never left. Raises NotFound; ValueError for an unknown field."""
        ...

    def put_segment(self, segment: Segment) -> None:
        """Add it or replace it; a final state is never left."""
        ...

    def segments(self, run: str) -> Sequence[Segment]:
        """In order of number."""
        ...

    def append_events(self, segment: str, events: Iterable[Mapping[str, Any]]) -> None:
        """By the segment's key and each event's `seq`; one that is there already is left as it is."""
        ...

    def events(self, segment: str, after: int = -1) -> Sequence[Mapping[str, Any]]: ...


class ModelStore(Protocol):
    """Artifacts, verdicts and deployments."""

    def add_artifact(self, artifact: Artifact) -> None:
        """Of no effect when one with this digest is there: the same bytes are the same artifact, the first run's."""
        ...

    def artifact(self, digest: str) -> Artifact:
        """By digest, by a prefix of its hex that only one has, or `latest`. Raises NotFound."""
        ...

    def artifacts(self) -> Sequence[Artifact]:
        """Newest first."""
        ...

    def add_verdict(self, verdict: Verdict) -> None: ...

    def verdicts(self, candidate: Digest | None = None) -> Sequence[Verdict]:
        """Newest first."""
        ...

    def add_deployment(self, base: str, artifact: Digest | None, engine: str, why: str) -> Deployment: ...

    def deployments(self) -> Sequence[Deployment]:
        """Newest first; the first one is in service."""
        ...


class FolderStore(Protocol):
    """Where the nodes of one store leave each other files; `place` is a folder's name, the same on every node.

    A node that shares its store with nobody needs none.
    """

    def keep(self, place: str, folder: Path, choose: Callable[[str], bool] = bool) -> None:
        """The files below `folder` whose path `choose` takes, together or not at all; those kept before stay."""
        ...

    def bring(self, place: str, folder: Path, choose: Callable[[str], bool] = bool) -> bool:
        """Make `folder` hold those that were kept, each verified; whether there are any. Its other files stay."""
        ...

    def forget(self, place: str, under: str = "") -> None:
        """Paths that begin with `under`, and their bytes where nothing else has the same."""
        ...


class SpendStore(Protocol):
    """The journal of money. Each change is atomic over all processes and nodes of the store, and is on disk after it.

    All changes are safe to repeat: a key is reserved once and settled once, whatever is called twice.
    """

    def reserve(self, claim: Claim, parts: Sequence[Part], caps: Caps, at: datetime) -> Money:
        """Hold at least `parts` for `claim`, adding to what it holds already; all that it holds now.

        Raises OverBudget, and holds nothing more, where a cap would be passed; Refused where the key is settled.
        """
        ...

    def settle(self, claim: Claim, bill: Sequence[Part], at: datetime, note: str = "") -> None:
        """Close what is held with what was billed: the rest is given back, all of it for an empty bill.

        A bill above what is held is written down as it is. Of no effect on a key that is closed.
        """
        ...

    def correct(self, claim: Claim, billed: Money, at: datetime, note: str) -> Money:
        """Make what is spent for the key `billed`, by one line with the difference, which is returned.

        A claim whose key is its run speaks of all that the run spent at that backend.
        """
        ...

    def usage(self, at: datetime, run: str | None = None, without: str | None = None) -> Usage:
        """What counts against each cap; `without` leaves out what that key holds."""
        ...

    def entries(self, *, key: str | None = None, run: str | None = None) -> Sequence[Entry]:
        """In the order in which they were written."""
        ...

    def accounts(self) -> Sequence[Account]:
        """Every key, in the order in which they were first seen."""
        ...
