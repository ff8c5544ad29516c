"""From Config to the watch over what the node cannot do just now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import chain

from elias.config.schema import Config
from elias.domain.degraded import Degraded
from elias.domain.spend import rooms
from elias.errors import EliasError
from elias.services.breaker import CIRCUIT_FILE
from elias.services.guard import Guarded
from elias.services.troubles import Places, Quotas, caps_reached, machine_held, runs_at_caps
from elias.services.weather import Source, Weather
from elias.services.yielding import Yielding
from elias.wiring.train import Training

WEATHER_FILE = "degraded.json"


def weather(config: Config, training: Training, yielding: Yielding) -> Weather:
    """Over its caps, its runs, this machine, and every place that is configured, in use or known to be down."""
    from elias.adapters.hardware import is_offline

    means = training.coordinator.means

    def money(now: datetime) -> Iterable[Degraded]:
        found = rooms(means.purse.caps(), means.purse.store.usage(now), "") if means.purse.store else ()
        return chain(caps_reached(found, now), runs_at_caps(means.runs, now))

    def places() -> Mapping[str, Guarded]:
        return _places(config, training)

    sources: dict[str, Source] = {
        "money": money,
        "machine": lambda now: machine_held(yielding.holds()),
        "places": Places(places=places, is_offline=is_offline),
        "quotas": Quotas(places=places),
    }
    return Weather(sources, config.home / WEATHER_FILE, means.clock)


def _places(config: Config, training: Training) -> Mapping[str, Guarded]:
    """Those that cannot be made are left out: `elias doctor` says what they lack."""
    marked = (file.parent.name for file in sorted((config.home / "backends").glob(f"*/{CIRCUIT_FILE}")))
    found: dict[str, Guarded] = dict(training.places.made())
    for name in dict.fromkeys([*config.backends, *marked]):
        if name in found:
            continue
        try:
            training.places(name)
        except EliasError:
            continue
        found |= training.places.made()
    return found
