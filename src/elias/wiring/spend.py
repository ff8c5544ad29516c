"""From Config to the money: the purse of a coordinator, and what a person asks of the journal."""

from __future__ import annotations

from elias.config.load import load
from elias.config.schema import Config
from elias.domain.spend import Caps
from elias.services.spend import Purse
from elias.units import Clock
from elias.wiring.stores import Stores


def open_purse(config: Config, stores: Stores, clock: Clock) -> Purse:
    """Its caps are read anew at every use: `elias budget set` holds at once, also for runs under way."""

    def caps() -> Caps:
        return caps_of(load({"home": str(config.home)}) if config.origins else config)

    return Purse(store=stores.spend, caps=caps, clock=clock)


def caps_of(config: Config) -> Caps:
    budget = config.budget
    return Caps(run=budget.run, day=budget.day, month=budget.month, account=budget.account)
