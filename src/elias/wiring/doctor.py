"""What this machine is, which tier that makes it, and what each strategy still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elias.config.schema import Config
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.run import HYBRID
from elias.domain.tier import TIERS, Machine, Tier, shortfalls, tier_of
from elias.errors import EliasError
from elias.wiring.backends import Backends, left_out, place_names
from elias.wiring.train import default_base
from elias_trainer.contract import BaseModel, Method, Recipe

LOCAL = "local"


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    name: str
    offers: tuple[Offer, ...] = ()
    needs: str | None = None
    """What it lacks; None is ready."""
    fix: str | None = None
    remark: str | None = None
    """Of one that is ready."""


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
    recipe = Recipe(method=Method.QLORA, batch_size=1, gradient_checkpointing=True)
    need = Need(base=BaseModel(reference=base), recipe=recipe, label=Label.PRIVATE, corpus_bytes=0)
    places = tuple(examine_place(Backends(config), name, need) for name in place_names(config))
    return Examination(
        machine=machine,
        tier=tier,
        next_tier=next_tier,
        lacks_for_next=shortfalls(machine, next_tier) if next_tier else (),
        base=base,
        strategies=(*places, _hybrid(config, places)),
    )


def _rank(tier: Tier) -> int:
    return TIERS.index(tier) if tier in TIERS else -1


def examine_place(backends: Backends, name: str, need: Need) -> Strategy:
    """What it offers for that, or what it lacks."""
    try:
        offers = tuple(backends.make(name).offers(need))
    except EliasError as error:
        return Strategy(name=name, needs=error.what, fix=error.fix)
    refusals = [offer.refused for offer in offers if offer.refused]
    if len(refusals) == len(offers):
        return Strategy(name=name, offers=offers, needs="; ".join(refusals) or "it offers nothing")
    return Strategy(name=name, offers=offers)


def _hybrid(config: Config, places: Sequence[Strategy]) -> Strategy:
    try:
        unwanted = left_out(config)
    except EliasError as error:
        return Strategy(name=HYBRID, needs=error.what, fix=error.fix)
    ready = [place.name for place in places if place.needs is None and place.name not in unwanted]
    if not ready:
        without = f" besides {', '.join(unwanted)}, which training.hybrid_without leaves out" if unwanted else ""
        fix = "give one place what it needs, as said above"
        return Strategy(name=HYBRID, needs=f"a place that is ready, and there is none{without}", fix=fix)
    if len(ready) == 1:
        only = "this machine" if ready == [LOCAL] else ready[0]
        return Strategy(name=HYBRID, remark=f"with {only} alone so far")
    return Strategy(name=HYBRID)
