"""From Config to the offers of every installed place, and to what this node has seen of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from elias.config.schema import Config
from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.errors import BackendError, NotFound
from elias.ports.backend import Backend
from elias.services.estimate import Known
from elias.services.foresee import seen_so_far
from elias.services.offers import PlaceRows, ask_all, rows_of
from elias.services.runs import Wanted
from elias.services.workload import Work, work_of_corpus, work_unknown
from elias.wiring.backends import Backends, left_out, place_names
from elias.wiring.corpus import open_blobs
from elias.wiring.guard import GuardedPlaces
from elias.wiring.stores import Stores, open_stores


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    places: tuple[PlaceRows, ...]
    """In alphabetical order."""
    corpus: Corpus | None
    work: Work


def list_offers(config: Config, wanted: Wanted, corpus: str | None, within: timedelta) -> Listing:
    """For a run as it is wanted; `corpus` None takes the latest where there is one. Raises NotFound for another."""
    with open_stores(config) as stores:
        found = _corpus(stores, corpus)
        work = work_of(config, stores, found, wanted) if found else work_unknown(wanted.recipe)
        known = Known(seen=seen_so_far(stores.runs), work=work)
        need = Need(
            base=wanted.base,
            recipe=wanted.recipe,
            label=found.label if found else Label.PRIVATE,
            corpus_bytes=_size(config, stores, found),
        )
        unwanted = dict.fromkeys(left_out(config), "hybrid leaves it out: training.hybrid_without names it")
        rows = [rows_of(answer, need, known) for answer in ask_all(makers(config), need, within)]
        places = tuple(replace(place, left_out=unwanted.get(place.backend)) for place in rows)
        return Listing(places=places, corpus=found, work=work)


def makers(config: Config) -> Mapping[str, partial[Backend]]:
    """Of every installed backend, ready or not."""
    from elias.adapters.clock import SystemClock

    guards = GuardedPlaces(config=config, clock=SystemClock(), places=Backends(config))
    return {name: partial(_make, guards, name) for name in place_names(config)}


def _make(guards: GuardedPlaces, name: str) -> Backend:
    """Raises BackendError for one that is left alone until its next probe: no run is planned there either."""
    circuit = guards.breaker(name).circuit()
    if circuit.down_since is not None and not circuit.may_probe(guards.clock.now()):
        raise BackendError(f"unavailable: {circuit.words}", fix="nothing: a node, or a run, asks it again by itself")
    return guards.places(name)[name]


def work_of(config: Config, stores: Stores, corpus: Corpus, wanted: Wanted) -> Work:
    with open_blobs(config, stores).open(corpus.train) as lines:
        return work_of_corpus(lines, wanted.recipe, wanted.base.reference)


def _corpus(stores: Stores, corpus: str | None) -> Corpus | None:
    try:
        return stores.corpora.get(corpus or "latest")
    except NotFound:
        if corpus is not None:
            raise
        return None


def _size(config: Config, stores: Stores, corpus: Corpus | None) -> int:
    return open_blobs(config, stores).path(corpus.train).stat().st_size if corpus else 0
