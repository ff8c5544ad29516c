"""From Config to the watch over what goes on elsewhere in the node's name, and how a status tells it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from elias.config.schema import Config
from elias.domain.fields import as_json
from elias.domain.holding import Holding, HoldingKind
from elias.domain.run import Run
from elias.errors import EliasError
from elias.ports.backend import Backend, NeedsLease
from elias.ports.stores import RunStore
from elias.services.orphans import Look, Orphans
from elias.units import Clock
from elias.wiring.train import Training

log = logging.getLogger("elias.orphans")

NEWEST_RUNS = 50
"""Whose places are looked at though the configuration names them no more."""


def orphans(config: Config, training: Training, clock: Clock) -> Orphans:
    """Over every place that the configuration has a table for, or that a recent run used."""

    def places() -> Mapping[str, Backend]:
        names = dict.fromkeys([*config.backends, *_used(training.stores.runs)])
        return {name: place for name in names if (place := _place(training, name)) is not None}

    return Orphans(places, training.stores.runs, clock)


def elsewhere(training: Training, looks: Sequence[Look], runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What goes on without this node and may cost money: by its own books, and as the places themselves said last."""
    told = [_told(look, holding) for look in looks for holding in look.jobs]
    told += [
        _told(look, orphan.holding, orphan.why)
        for look in looks
        for orphan in look.orphans
        if orphan.holding not in look.jobs
    ]
    orphaned = {orphan.holding.name: orphan.why for look in looks for orphan in look.orphans}
    rows = [row | {"orphaned": orphaned.get(row["name"])} for row in told]
    segments = {row["segment"] for row in rows}
    return rows + [row for row in _by_the_books(training, runs) if row["segment"] not in segments]


def troubles(looks: Sequence[Look]) -> list[str]:
    """Of each place that could not be looked at, in one line."""
    return [f"what goes on at {look.place} is not known: {look.trouble}" for look in looks if look.trouble]


def _by_the_books(training: Training, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Segments under way at places that train on when nobody renews a lease."""
    for run in runs:
        last = next(iter(training.stores.runs.segments(run.id)[-1:]), None)
        if last is None or last.state.is_final or last.handle is None:
            continue
        place = _place(training, last.backend)
        if place is not None and not isinstance(place, NeedsLease):
            job = Holding(kind=HoldingKind.JOB, name=last.handle, run=run.id, segment=last.key, since=last.started_at)
            yield _row(last.backend, job)


def _told(look: Look, holding: Holding, why: str | None = None) -> dict[str, Any]:
    return _row(look.place, holding) | {"orphaned": why}


def _row(place: str, holding: Holding) -> dict[str, Any]:
    fields: dict[str, Any] = as_json(holding)
    kept = ("kind", "name", "run", "segment", "since", "ends_by", "hourly", "is_ending", "detail")
    return {"place": place} | {name: fields[name] for name in kept} | {"orphaned": None}


def _used(runs: RunStore) -> Iterator[str]:
    for run in islice(runs.list(), NEWEST_RUNS):
        yield from (segment.backend for segment in runs.segments(run.id))


def _place(training: Training, name: str) -> Backend | None:
    """None where it cannot be made; `elias doctor` says what it lacks."""
    try:
        return training.coordinator.means.backends(name)[name]
    except EliasError as error:
        log.info("orphans.no_place place=%s what=%s", name, error.what)
        return None
