"""A place where a segment can be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from elias.domain.holding import Holding
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentFailure, SegmentState
from elias.units import FREE, Clock, Money, instant, rfc3339
from elias_trainer.contract import FailureKind, Job


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """All that a segment takes along. The files are named by `job`, relative to `folder`, and already verified."""

    job: Job
    folder: Path
    """Holds job.json, corpus.jsonl, trainer.pyz and, when resuming, the checkpoint."""
    label: Label


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    state: SegmentState
    """`pending` also while the place knows the segment but has not begun it."""
    accelerator: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cost: Money = FREE
    """Billed or estimated so far; never less than what will be billed for the time that has passed."""
    cost_is_final: bool = True
    """Of one that has ended: whether `cost` is all it will come to. Where not, all that was reserved stays reserved."""
    failure: SegmentFailure | None = None
    note: str | None = None
    """One line for people: what it is doing or waiting for."""

    @classmethod
    def failed(cls, kind: FailureKind, message: str, fix: str) -> Status:
        return cls(state=SegmentState.FAILED, failure=SegmentFailure(kind=kind, message=message, fix=fix))

    def to_record(self, ended_at: datetime | None = None) -> dict[str, Any]:
        """For JSON; `ended_at` stands in where it has none of its own."""
        failure, ended_at = self.failure, self.ended_at or ended_at
        return {
            "state": str(self.state),
            "accelerator": self.accelerator,
            "started_at": rfc3339(self.started_at) if self.started_at else None,
            "ended_at": rfc3339(ended_at) if ended_at else None,
            "cost": self.cost.micro_usd,
            "cost_is_final": self.cost_is_final,
            "failure": [str(failure.kind), failure.message, failure.fix] if failure else None,
            "note": self.note,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Status:
        """Also of one written when statuses said less."""
        started, ended, why = record["started_at"], record["ended_at"], record["failure"]
        return cls(
            state=SegmentState(record["state"]),
            accelerator=record.get("accelerator"),
            started_at=instant(started) if started else None,
            ended_at=instant(ended) if ended else None,
            cost=Money(record.get("cost", 0)),
            cost_is_final=record.get("cost_is_final", True),
            failure=SegmentFailure(kind=FailureKind(why[0]), message=why[1], fix=why[2]) if why else None,
            note=record.get("note"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendContext:
    """What a backend's factory is given; it reads nothing else from the node."""

    name: str
    node: str
    """The node's own name: part of every remote name and tag."""
    home: Path
    """A folder of its own, kept between calls and processes."""
    settings: Mapping[str, Any]
    """The `[backends.<name>]` table of the configuration, as the user wrote it; the factory validates it."""
    clock: Clock
    environment: Mapping[str, str] = field(default_factory=dict)
    node_key: str | None = field(default=None, repr=False)
    """The node's age identity; whoever sends private data away has the answer sealed for it."""


BackendFactory = Callable[[BackendContext], "Backend"]
"""What an `elias.backends` entry point names. Raises MissingPackage or ConfigError with its fix."""


class Backend(Protocol):
    """Every method may be called again after a crash, with the same arguments, and then has the same effect once.

    All raise BackendError (worth a retry or not), MissingPackage, or a Refused; vendor errors never pass.
    """

    def offers(self, need: Need) -> Sequence[Offer]:
        """What could run this now, at what price, speed and quota; refused ones too, with their reason."""
        ...

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        """Start the segment `key`, or find it again when it was started before; its handle, at once.

        Raises LabelForbids when the bundle's label does not allow this place. Where money is reserved for the key, any
        BackendError but NotStarted says that nobody knows whether it was started: it is submitted again, the same.
        """
        ...

    def poll(self, handle: str) -> Status:
        """How it is. A final state stays. A handle nobody knows any more is `failed`, kind infrastructure."""
        ...

    def fetch(self, handle: str, into: Path) -> None:
        """Bring `out/` home: events.jsonl, the newest whole checkpoint, and result.json and adapter/ if there are any.

        Allowed while it runs and after any end, also a bad one. Files appear whole; what is not there is left out.
        """
        ...

    def cancel(self, handle: str) -> None:
        """End it soon, keeping its newest checkpoint. Of no effect on one that has ended."""
        ...


@runtime_checkable
class StreamsEvents(Protocol):
    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        """The segment's events with `seq` > `after` that are known now, in order; then it ends. Never blocks long."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    used: timedelta
    reserved: timedelta
    allowed: timedelta
    refreshes_at: datetime
    running: int
    concurrency: int


@runtime_checkable
class HasQuota(Protocol):
    def quota(self) -> Quota:
        """Read live; the configured cap is already in `allowed`."""
        ...


@runtime_checkable
class NeedsLease(Protocol):
    def renew(self, handle: str) -> None:
        """Tell the trainer that somebody still waits for it. Called at every poll."""
        ...


@runtime_checkable
class CanPause(Protocol):
    def pause(self, handle: str) -> None:
        """Ask the trainer to finish its step, write a checkpoint and end; returns at once.

        Of no effect on one that has ended. Without this power a pause is a cancel.
        """
        ...


@runtime_checkable
class Listens(Protocol):
    """A place whose machines call this node, and so need somebody to answer."""

    def listen(self) -> None:
        """Answer from a thread, unless nobody may call or another process of this node answers. Safe to repeat."""
        ...

    def close(self) -> None:
        """Stop answering; what goes on elsewhere goes on."""
        ...


@runtime_checkable
class RunsHere(Protocol):
    """A place on this very machine, which its own inference may need back."""

    def make_way(self, handle: str, why: str) -> None:
        """Within 10 s its trainer uses none of this machine's processors; all finished steps are kept.

        Called about twice a second until the segment has ended, which it does `paused`, with `why` in its failure of
        kind `preempted`. Of no effect on one that has ended; one that waits for its turn ends without being begun.
        """
        ...

    def come_back(self, handle: str) -> None:
        """The machine is free again: whatever was left standing in `make_way` goes on to its end."""
        ...


@runtime_checkable
class CanForget(Protocol):
    def forget(self, handle: str) -> None:
        """Drop the files of an ended segment that came home; `poll` still knows how it ended."""
        ...


@runtime_checkable
class HasLog(Protocol):
    def log(self, handle: str) -> Iterator[str]:
        """The lines that the trainer printed, as far as they are at hand; without its events."""
        ...


@runtime_checkable
class Adopts(Protocol):
    def adopt(self, address: str) -> str:
        """Bring home what somebody started there by hand; the handle to `fetch` it by.

        Raises InputError for what is no address of this place, NotFound, BackendError while it runs, or a
        VerificationError. Safe to repeat.
        """
        ...


@runtime_checkable
class CanFind(Protocol):
    def find(self, key: str) -> str | None:
        """The handle of what was started under `key`; None where there certainly is nothing.

        Raises BackendError while nobody can tell.
        """
        ...


@runtime_checkable
class HasBills(Protocol):
    def billed(self, since: datetime, until: datetime) -> Mapping[str, Money]:
        """What the provider's own bill says of that time, by segment key, or by run id where it tells no more.

        What is not billed yet is left out, never zero. Raises BackendError or a Refused.
        """
        ...


@runtime_checkable
class HasCredentials(Protocol):
    def has_credentials(self) -> bool:
        """Whether any are found where its own tools look for them; reads environment and files, asks no network."""
        ...


@runtime_checkable
class HasHoldings(Protocol):
    """A place where things of this node may go on, and cost money, when nobody looks."""

    def holdings(self) -> Sequence[Holding]:
        """All that carries this node's marks there and has not ended. Raises BackendError or a UserError."""
        ...

    def stop(self, name: str) -> None:
        """End a job of that name, keeping what it saved. Safe to repeat."""
        ...

    def orphan_grace(self) -> timedelta | None:
        """How old a job without an owner must be to be stopped; None only reports it."""
        ...
