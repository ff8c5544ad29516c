"""What this machine is, which tier that makes it, and what each strategy still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elias.config.schema import Config
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.tier import TIERS, Machine, Tier, shortfalls, tier_of
from elias.errors import EliasError
from elias.wiring.backends import HYBRID, Backends, place_names
from elias.wiring.train import default_base
from elias_trainer.contract import BaseModel, Method, Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    name: str
    offers: tuple[Offer, ...] = ()
    needs: str | None = None
    """What it lacks; None is ready."""
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    machine: Machine
    tier: Tier
    next_tier: Tier | None
    lacks_for_next: tuple[str, ...]
    base: str
    """What `train` would train where nobody chose."""
    strategies: tuple[Strategy, ...]


def examine(config: Config) -> Examination:
    """Asks every backend that is installed for its offers; a backend that cannot answer says what it lacks."""
    from elias.adapters.hardware import probe

    machine = probe(config.home)
    tier = tier_of(machine)
    next_tier = next((t for t in TIERS if TIERS.index(t) > _rank(tier)), None)
    base, _ = default_base(config)
    places = tuple(_strategy(config, name, base) for name in place_names(config))
    return Examination(
        machine=machine,
        tier=tier,
        next_tier=next_tier,
        lacks_for_next=shortfalls(machine, next_tier) if next_tier else (),
        base=base,
        strategies=(*places, _hybrid(places)),
    )


def _rank(tier: Tier) -> int:
    return TIERS.index(tier) if tier in TIERS else -1


def _strategy(config: Config, name: str, base: str) -> Strategy:
    recipe = Recipe(method=Method.QLORA, batch_size=1, gradient_checkpointing=True)
    need = Need(base=BaseModel(reference=base), recipe=recipe, label=Label.PRIVATE, corpus_bytes=0)
    try:
        offers = tuple(Backends(config)(name)[name].offers(need))
    except EliasError as error:
        return Strategy(name=name, needs=error.what, fix=error.fix)
    refusals = [offer.refused for offer in offers if offer.refused]
    if len(refusals) == len(offers):
        return Strategy(name=name, offers=offers, needs="; ".join(refusals) or "it offers nothing")
    return Strategy(name=name, offers=offers)


def _hybrid(places: Sequence[Strategy]) -> Strategy:
    ready = [place.name for place in places if place.needs is None]
    if len(ready) > 1:
        return Strategy(name=HYBRID)
    return Strategy(
        name=HYBRID,
        needs=f"two places that are ready, and there is {ready[0] if ready else 'none'}",
        fix="give one more place what it needs, as said above",
    )
