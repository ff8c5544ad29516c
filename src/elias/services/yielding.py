"""Training on this machine makes way for inference, and comes back by itself.

A thread looks twice a second. While anything holds this machine, every segment that trains on it is asked to make way
(again and again: a place may need a second word), and `hold` keeps new ones from being planned here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from elias.domain.hold import Demand, Hold, Pressure, YieldRule
from elias.domain.run import RunState
from elias.ports.backend import Backend, RunsHere
from elias.ports.stores import RunStore
from elias.units import Clock

log = logging.getLogger("elias.yield")

LOOK_EVERY = timedelta(milliseconds=500)
BATTERY_EVERY = timedelta(minutes=1)
ON_BATTERY = "this machine runs on its battery; goes on when it is plugged in"


class Yielding:
    """`demand` is what the gateway says; `on_battery` whether this machine runs on its battery and may not train so.

    `saw` is told at each look, in the thread that looks, whether anything holds this machine.
    """

    def __init__(
        self,
        rule: YieldRule,
        demand: Callable[[], Demand],
        clock: Clock,
        on_battery: Callable[[], bool] = lambda: False,
        saw: Callable[[datetime, bool], None] = lambda now, is_held: None,
    ) -> None:
        self._demand, self._on_battery, self._clock, self._saw = demand, on_battery, clock, saw
        self._lock = threading.Lock()
        self._pressure = Pressure(rule=rule)
        self._battery: Hold | None = None

    def look(self) -> Hold | None:
        """See how things are now; what holds this machine."""
        now = self._clock.now()
        demand, on_battery = self._demand(), self._on_battery()
        with self._lock:
            before = self._held()
            self._pressure = self._pressure.after(demand, now)
            since = self._battery.since if self._battery else now
            again = now + BATTERY_EVERY
            self._battery = Hold(why=ON_BATTERY, since=since, until=again) if on_battery else None
            held = self._held()
        self._saw(now, held is not None)
        if held and not before:
            log.info("yield.begins why=%s", held.why)
        elif before and not held:
            log.info("yield.ends since=%s", before.since)
        return held

    def hold(self) -> Hold | None:
        """As it was seen last."""
        with self._lock:
            return self._held()

    def holds(self) -> Sequence[Hold]:
        """Each one apart: inference first."""
        with self._lock:
            return [hold for hold in (self._pressure.hold(), self._battery) if hold is not None]

    def _held(self) -> Hold | None:
        return self._pressure.hold() or self._battery


class Yielder:
    """Carries it out, at each look. `places` are those of a strategy, as the coordinator has them."""

    def __init__(self, yielding: Yielding, runs: RunStore, places: Callable[[str], Mapping[str, Backend]]) -> None:
        self.yielding = yielding
        self._runs, self._places = runs, places
        self._has_held = True
        """Until the first look: the node before this one may have left a trainer standing."""

    def look(self) -> None:
        """Once: hold or let go."""
        held = self.yielding.look()
        if held is None and not self._has_held:
            return
        self._has_held = held is not None
        for place, handle in self._under_way():
            if held is not None:
                place.make_way(handle, held.why)
            else:
                place.come_back(handle)

    def _under_way(self) -> Iterator[tuple[RunsHere, str]]:
        for run in self._runs.list():
            if run.state not in (RunState.RUNNING, RunState.WAITING):
                continue
            for segment in self._runs.segments(run.id)[-1:]:
                if segment.state.is_final or segment.handle is None:
                    continue
                place = self._places(segment.backend).get(segment.backend)
                if isinstance(place, RunsHere):
                    yield place, segment.handle
