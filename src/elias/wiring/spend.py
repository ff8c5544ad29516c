"""From Config to the money: the purse of a coordinator, and what a person asks of the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from elias.config.load import load
from elias.config.schema import Config
from elias.domain.spend import Caps
from elias.errors import EliasError
from elias.ports.backend import Backend, HasBills
from elias.services.books import Books, Compared
from elias.services.spend import Purse
from elias.units import Clock
from elias.wiring.backends import Backends
from elias.wiring.stores import Stores, open_stores


def open_purse(config: Config, stores: Stores, clock: Clock) -> Purse:
    """Its caps are read anew at every use: `elias budget set` holds at once, also for runs under way."""

    def caps() -> Caps:
        return caps_of(load({"home": str(config.home)}) if config.origins else config)

    return Purse(store=stores.spend, caps=caps, clock=clock)


def caps_of(config: Config) -> Caps:
    budget = config.budget
    return Caps(run=budget.run, day=budget.day, month=budget.month, account=budget.account)


@contextmanager
def open_books(config: Config) -> Iterator[Books]:
    """Raises StoreError, ConfigError, MissingPackage."""
    from elias.adapters.clock import SystemClock

    with open_stores(config) as stores:
        yield Books(store=stores.spend, runs=stores.runs, clock=SystemClock())


def reconcile(config: Config, books: Books, back: timedelta) -> tuple[list[Compared], dict[str, EliasError]]:
    """What the bills of that time say beside the journal, and the backends that could not be asked, with why."""
    places, silent = _places(config, books)
    books.settle_lost(places)
    until = books.clock.now()
    found: list[Compared] = []
    for name, place in places.items():
        if isinstance(place, HasBills):
            try:
                found += books.compare(name, place.billed(until - back, until), until - back)
            except EliasError as error:
                silent[name] = error
    return found, silent


def _places(config: Config, books: Books) -> tuple[Mapping[str, Backend], dict[str, EliasError]]:
    """Every backend that is configured or that the journal names."""
    backends, places, silent = Backends(config), dict[str, Backend](), dict[str, EliasError]()
    for name in dict.fromkeys([*config.backends, *(a.claim.backend for a in books.store.accounts())]):
        try:
            places[name] = backends(name)[name]
        except EliasError as error:
            silent[name] = error
    return places, silent
