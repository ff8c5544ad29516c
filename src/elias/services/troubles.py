"""The causes of degraded states: caps on money, quotas, places that do not answer, what holds this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from elias.domain.circuit import Circuit
from elias.domain.degraded import Degraded, Trouble
from elias.domain.hold import Hold
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.domain.run import RunState, Wish
from elias.domain.spend import Cap, Room, dollars, named
from elias.errors import BackendError, EliasError
from elias.ports.backend import HasQuota, Quota
from elias.ports.stores import RunStore
from elias.services.guard import Guarded
from elias.services.planner.problem import SHORTEST
from elias.services.yielding import ON_BATTERY
from elias.units import Money
from elias_trainer.contract import TINY, BaseModel, Recipe

A_CENT = Money.usd("0.01")
QUOTA_EVERY = timedelta(minutes=5)
ASKED_EVERY = timedelta(minutes=1)
PROBE = Need(base=BaseModel(reference=TINY), recipe=Recipe(), label=Label.PUBLIC, corpus_bytes=0)
"""Asked of a place that is down, whether any run needs it or not: so that it is known to be back."""


def caps_reached(rooms: Sequence[Room], now: datetime) -> Iterable[Degraded]:
    """The node's own caps with less than a cent left."""
    for room in rooms:
        if room.cap is Cap.RUN or room.left >= A_CENT or room.limit < A_CENT:  # nothing may be spent: that is a choice
            continue
        raised = f"somebody raises it: elias budget set {room.setting} AMOUNT"
        yield Degraded(
            name=Trouble.BUDGET_GONE,
            about=str(room.cap),
            since=now,
            cause=f"the cap of {named(room.cap)}, {dollars(room.limit)}: {dollars(room.spent)} spent, "
            f"{dollars(room.reserved)} reserved",
            leaves=raised if room.until is None else f"the next one begins, or {raised}",
            until=room.until,
        )


def runs_at_caps(runs: RunStore, now: datetime) -> Iterable[Degraded]:
    """Those that were paused at a cap, not by a person."""
    for run in runs.list():
        if run.state is RunState.PAUSED and run.wish is Wish.GO:
            cause, leaves = run.reason or "its budget is spent", f"it is given more, then: elias run resume {run.id}"
            yield Degraded(name=Trouble.BUDGET_GONE, about=run.id, since=now, cause=cause, leaves=leaves)


def machine_held(holds: Sequence[Hold]) -> Iterable[Degraded]:
    for hold in holds:
        is_battery = hold.why == ON_BATTERY
        yield Degraded(
            name=Trouble.ON_BATTERY if is_battery else Trouble.INFERENCE_FIRST,
            about="",
            since=hold.since,
            cause=hold.why.partition(";")[0],
            leaves="the machine is plugged in" if is_battery else "the gateway has been calm for serving.calm_for",
            until=None if is_battery else hold.until,
        )


@dataclass(kw_only=True)
class Quotas:
    """Of every place that has one; asked now and then, and never of one that is down."""

    places: Callable[[], Mapping[str, Guarded]]
    _seen: dict[str, tuple[datetime, Quota]] = field(default_factory=dict)

    def __call__(self, now: datetime) -> Iterable[Degraded]:
        for name, place in self.places().items():
            quota = self._quota(name, place, now)
            if quota is None or quota.allowed - quota.used - quota.reserved >= SHORTEST:
                continue
            yield Degraded(
                name=Trouble.QUOTA_GONE,
                about=name,
                since=now,
                cause=f"{_hours(quota.used)} used and {_hours(quota.reserved)} reserved of {_hours(quota.allowed)}",
                leaves="the quota is renewed",
                until=quota.refreshes_at,
            )

    def _quota(self, name: str, place: Guarded, now: datetime) -> Quota | None:
        seen = self._seen.get(name)
        is_fresh = seen is not None and now - seen[0] < QUOTA_EVERY and now < seen[1].refreshes_at
        if not is_fresh and isinstance(place, HasQuota) and not (place.breaker and place.breaker.circuit().down_since):
            try:
                seen = self._seen[name] = now, place.quota()
            except BackendError as error:
                if place.breaker is not None and error.is_worth_retry:
                    place.breaker.failed(error.what)
            except EliasError:
                return None  # no key, no package: such a place has no quota here
        return seen[1] if seen else None


@dataclass(kw_only=True)
class Places:
    """Those that do not answer; each is probed when its time has come."""

    places: Callable[[], Mapping[str, Guarded]]
    is_offline: Callable[[], bool] = lambda: False
    """Whether this machine has no way out at all."""
    _asked: dict[str, datetime] = field(default_factory=dict)
    """Those that are up, when another one was down."""

    def __call__(self, now: datetime) -> Iterable[Degraded]:
        remote = {name: place for name, place in self.places().items() if place.breaker is not None}
        circuits = {name: _probed(place, now) for name, place in remote.items()}
        if any(circuit.down_since for circuit in circuits.values()):
            circuits |= {
                name: self._asked_too(name, remote[name], now) for name, c in circuits.items() if not c.down_since
            }
        down = {name: circuit for name, circuit in circuits.items() if circuit.down_since is not None}
        for name, circuit in down.items():
            yield Degraded(
                name=Trouble.PLACE_DOWN,
                about=name,
                since=circuit.down_since or now,
                cause=circuit.cause,
                leaves="it answers again",
                until=circuit.probe_at,
            )
        if down and len(down) == len(remote) and (len(down) > 1 or self.is_offline()):
            yield Degraded(
                name=Trouble.NETWORK_GONE,
                about="",
                since=max(circuit.down_since or now for circuit in down.values()),
                cause=f"none of {', '.join(sorted(down))} answers",
                leaves="one of them answers again",
                until=min((c.probe_at for c in down.values() if c.probe_at), default=None),
            )

    def _asked_too(self, name: str, place: Guarded, now: datetime) -> Circuit:
        """While another one is down: whether it alone is, or all of them are. Nobody else may have asked."""
        assert place.breaker is not None
        if now - self._asked.get(name, now - ASKED_EVERY) >= ASKED_EVERY:
            self._asked[name] = now
            with suppress(EliasError):  # the guard has counted it
                place.offers(PROBE)
        return place.breaker.circuit()


def _probed(place: Guarded, now: datetime) -> Circuit:
    assert place.breaker is not None
    if place.breaker.circuit().may_probe(now):
        with suppress(EliasError):  # the guard has counted it, and says when the next one is
            place.offers(PROBE)
    return place.breaker.circuit()


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"
