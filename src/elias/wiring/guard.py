"""From Config to places that are guarded: each behind its breaker, this machine behind what holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from elias.config.schema import Config
from elias.domain.hold import Hold
from elias.ports.backend import Backend, RunsHere
from elias.services.breaker import CIRCUIT_FILE, Breaker
from elias.services.guard import Guarded, nothing_holds
from elias.services.habit import HABIT_FILE, read_habit
from elias.units import Clock


@dataclass(kw_only=True)
class GuardedPlaces:
    """Strategy -> its places, each guarded, the same object every time."""

    config: Config
    clock: Clock
    places: Callable[[str], Mapping[str, Backend]]
    hold: Callable[[], Hold | None] = nothing_holds
    """What holds this machine; the node sets it."""
    _made: dict[str, Guarded] = field(default_factory=dict)

    def __call__(self, strategy: str) -> Mapping[str, Backend]:
        return _View(self, self.places(strategy))

    def guarded(self, name: str, place: Backend) -> Guarded:
        found = self._made.get(name)
        if found is None or found.place is not place:
            is_here = isinstance(place, RunsHere)
            if is_here:
                found = Guarded(name, place, None, self._held, lambda: read_habit(habit_file(self.config)))
            else:
                found = Guarded(name, place, self.breaker(name))
            self._made[name] = found
        return found

    def breaker(self, name: str) -> Breaker:
        return Breaker(name, self.config.home / "backends" / name / CIRCUIT_FILE, self.clock)

    def made(self) -> Mapping[str, Guarded]:
        """Those that were asked for since this process began."""
        return dict(self._made)

    def _held(self) -> Hold | None:
        return self.hold()


def habit_file(config: Config) -> Path:
    """Where the node writes when this machine is held."""
    return config.home / "backends" / "local" / HABIT_FILE


class _View(dict[str, Backend]):
    """Of a mapping that may make more places when they are asked for."""

    def __init__(self, guards: GuardedPlaces, found: Mapping[str, Backend]) -> None:
        super().__init__({name: guards.guarded(name, place) for name, place in found.items()})
        self._guards, self._found = guards, found

    def __missing__(self, name: str) -> Backend:
        return self._guards.guarded(name, self._found[name])
