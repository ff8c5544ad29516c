"""What a place holds in a node's name, and what of it nobody owns any more. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from elias.units import Money


class HoldingKind(StrEnum):
    JOB = "job"
    """Something that computes: the only kind that is ever stopped by itself."""
    FILES = "files"
    KEY = "key"


class Owner(StrEnum):
    """What a node's store knows of a run's segment."""

    UNDER_WAY = "under_way"
    ENDED = "ended"
    """The segment is over, or the run is: nobody waits for the job."""
    UNKNOWN = "unknown"
    """The store has no such run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    kind: HoldingKind
    name: str
    node: str | None = None
    """As it is marked."""
    run: str | None = None
    segment: str | None = None
    """The segment's key; None where all of the run is meant."""
    since: datetime | None = None
    ends_by: datetime | None = None
    """When the place itself ends it, at the latest."""
    hourly: Money | None = None
    """What it costs while it stands, at the most; None where nobody knows."""
    is_ending: bool = False
    is_set_up: bool = False
    """Made once for all runs: nobody's orphan."""
    is_surely_ours: bool = False
    """Whether no other home can have begun it: it is written down here, or the node has a name of its own."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    holding: Holding
    why: str


def orphans_among(holdings: Sequence[Holding], owner: Callable[[str, str | None], Owner]) -> list[Orphan]:
    """Those that no run owns; `owner` is asked with a run and a segment of it, or None."""
    found = [(holding, _why_orphaned(holding, owner)) for holding in holdings]
    return [Orphan(holding=holding, why=why) for holding, why in found if why is not None]


def may_be_stopped(orphan: Orphan, now: datetime, grace: timedelta) -> bool:
    """Only a job, only one that no other home can have begun, and none so young that its run may not be written yet."""
    holding = orphan.holding
    if holding.kind is not HoldingKind.JOB or holding.is_ending or not holding.is_surely_ours:
        return False
    return holding.since is not None and now - holding.since >= grace


def _why_orphaned(holding: Holding, owner: Callable[[str, str | None], Owner]) -> str | None:
    if holding.is_set_up:
        return None
    if holding.run is None:
        return "it belongs to no run"
    known = owner(holding.run, holding.segment)
    if known is Owner.UNKNOWN:
        return "this node's store has no such run"
    if known is Owner.ENDED and holding.kind is HoldingKind.JOB:
        return "its segment has ended here, and nobody waits for it"
    return None
