"""From Config to training: the places, the coordinator and the engine that carries it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.config.schema import Config
from elias.domain.corpus import Corpus
from elias.domain.plan import Plan
from elias.domain.run import Run, Segment
from elias.errors import ConfigError, EliasError
from elias.ports.backend import Backend, BackendContext, HasCredentials, Listens
from elias.ports.durable import DurableEngine
from elias.ports.stores import BlobStore
from elias.services.foresee import seen_so_far
from elias.services.run_share import RunShare
from elias.services.runs import Runs, Wanted, new_run
from elias.services.train import WORKFLOW, Coordinator, Means, Pace
from elias.units import Clock
from elias.wiring.guard import GuardedPlaces
from elias.wiring.plugins import load_plugin, plugin_names
from elias.wiring.spend import open_purse
from elias.wiring.stores import Stores, missing_node_package, open_engine, open_stores
from elias_trainer.contract import STARTER, Digest

log = logging.getLogger("elias.backends")

RUNS_FOLDER = "runs"
BASES_FOLDER = "cache/bases"
HYBRID = "hybrid"
KIND = "kind"
"""In a backend's table: which installed backend it is, where that is not the table's own name."""
TRY_AGAIN_S = 60.0
"""A place that could not be made is not tried again sooner: finding no credentials takes a second."""
REAL_BASE = "deepseek-ai/deepseek-coder-6.7b-instruct"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What may be swapped: the trainer's archive, what makes an artifact, where corpora are, and the time."""

    archive: Callable[[Path], object]
    finish: Callable[[Run, Sequence[Segment], Path], Digest]
    blobs: BlobStore
    clock: Clock | None = None
    """None is the machine's."""


@dataclass(kw_only=True)
class Training:
    """A node's training. `launch` makes this process the one that carries runs; without it, it only asks."""

    stores: Stores
    engine: DurableEngine
    coordinator: Coordinator
    runs: Runs
    places: GuardedPlaces
    _is_launched: bool = field(default=False)

    def launch(self) -> None:
        """Raises Refused when another process is this node's engine. Of no effect when this one is."""
        if self._is_launched:
            return
        self.engine.register(WORKFLOW, self.coordinator.carry)
        self.engine.launch()
        self._is_launched = True

    def stop(self) -> None:
        """Trainers under way pause by themselves, unless another engine goes on with them in time."""
        self.coordinator.stop()
        self.engine.stop()
        for place in self.places.made().values():
            if isinstance(place, Listens):
                place.close()
        self._is_launched = False

    def plan(self, wanted: Wanted, corpus: Corpus) -> Plan:
        """Where the first segment would go now, and why not elsewhere."""
        return self.coordinator.preview(new_run(wanted, corpus, self.coordinator.means.clock))

    def plan_ahead(self, wanted: Wanted, corpus: Corpus) -> Plan:
        """The whole run from segment to segment: when, where, for how much and how likely; and what else there is."""
        return self.coordinator.look_ahead(new_run(wanted, corpus, self.coordinator.means.clock))


@contextmanager
def open_training(config: Config, parts: Parts | None = None, *, workers: int = 8) -> Iterator[Training]:
    """With its stores; all closed afterwards. `workers` is how many runs it carries at once.

    Raises StoreError, ConfigError, MissingPackage.
    """
    with open_stores(config) as stores:
        training = make_training(config, stores, open_engine(config, workers=workers), parts)
        try:
            yield training
        finally:
            training.stop()


def make_training(config: Config, stores: Stores, engine: DurableEngine, parts: Parts | None = None) -> Training:
    from elias.adapters.clock import SystemClock

    parts = parts or _real_parts(config, stores)
    clock = parts.clock or SystemClock()
    backends = GuardedPlaces(config=config, clock=clock, places=Backends(config, clock))
    means = Means(
        runs=stores.runs,
        corpora=stores.corpora,
        blobs=parts.blobs,
        backends=backends,
        archive=parts.archive,
        finish=parts.finish,
        folders=config.home / RUNS_FOLDER,
        clock=clock,
        node=config.node.name,
        purse=open_purse(config, stores, clock),
        seen=partial(seen_so_far, stores.runs),
        share=RunShare(stores.folders),
    )
    pace = Pace(lease=config.training.lease, checkpoint_every=config.training.checkpoint_every)
    runs = Runs(store=stores.runs, engine=engine, backends=backends, clock=clock, node=config.node.name)
    return Training(stores=stores, engine=engine, coordinator=Coordinator(means, pace), runs=runs, places=backends)


class Backends:
    """Strategy -> the places it allows, each made on first use and kept."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock
        self.made: dict[str, Backend] = {}
        self.failed: dict[str, float] = {}
        """Name -> when it last could not be made, on the monotonic clock."""

    def __call__(self, strategy: str) -> Mapping[str, Backend]:
        """Raises NotFound for a strategy nobody knows, MissingPackage, ConfigError; of `hybrid` one of `left_out`."""
        return self._ready() if strategy == HYBRID else {strategy: self.make(strategy)}

    def make(self, name: str) -> Backend:
        """Ready or not. Raises NotFound, MissingPackage, ConfigError."""
        if name not in self.made:
            kind = str(self.config.backends.get(name, {}).get(KIND, name))
            self.made[name] = load_plugin("elias.backends", kind)(backend_context(self.config, name, self.clock))
        return self.made[name]

    def _ready(self) -> Mapping[str, Backend]:
        """This machine, what is configured, and what else finds its credentials; `elias offers` shows the others."""
        wanted, unwanted = dict.fromkeys(["local", *self.config.backends]), left_out(self.config)
        found = Places(self.make)
        for name in dict.fromkeys([*wanted, *place_names(self.config)]):
            if name in unwanted or time.monotonic() - self.failed.get(name, -math.inf) < TRY_AGAIN_S:
                continue
            try:
                backend = self.make(name)
            except EliasError as error:
                self.failed[name] = time.monotonic()
                log.info("the place %s is left out: %s (fix: %s)", name, error.what, error.fix)
                continue
            if name in wanted or not isinstance(backend, HasCredentials) or backend.has_credentials():
                found[name] = backend
        return found


def place_names(config: Config) -> tuple[str, ...]:
    """Every installed backend and every configured one; a kind that only serves under other names is left out."""
    kinds = {str(table[KIND]) for table in config.backends.values() if KIND in table}
    return tuple(sorted((set(plugin_names("elias.backends")) - kinds) | set(config.backends)))


def left_out(config: Config) -> tuple[str, ...]:
    """The places that `hybrid` does not go to. Raises ConfigError for one that there is not."""
    names, known = config.training.hybrid_without, place_names(config)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"training.hybrid_without names {unknown[0]!r}, and there is no such place",
            fix=f"the places are: {', '.join(known)}",
        )
    return names


class Places(dict[str, Backend]):
    """One that is not ready any more is made all the same when it is asked for: a segment may still be there."""

    def __init__(self, make: Callable[[str], Backend]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Backend:
        return self._make(name)


def default_base(config: Config) -> tuple[str, str | None]:
    """The base where none was asked for, and one line about it when it is not the one for real use."""
    if config.training.base:
        return config.training.base, None
    from elias.adapters.hardware import gpus

    if gpus():
        return REAL_BASE, None
    return STARTER, f"no GPU here: training `{STARTER}` (SmolLM2-135M) instead of {REAL_BASE}; --base chooses another"


def backend_context(config: Config, name: str, clock: Clock | None = None) -> BackendContext:
    from elias.adapters.clock import SystemClock

    return BackendContext(
        name=name,
        node=config.node.name,
        home=config.home / "backends" / name,
        settings=_settings(config, name),
        clock=clock or SystemClock(),
        environment=dict(os.environ),
        node_key=_node_key(config),
    )


def _node_key(config: Config) -> str | None:
    """The node's age identity; None before `elias init`. Raises ConfigError, MissingPackage."""
    from elias.wiring.attest import IDENTITY_FOLDER

    folder = config.home / IDENTITY_FOLDER
    if not (folder / "seed").exists():
        return None
    try:
        from elias.adapters.signing.identity import load_identity
    except ModuleNotFoundError as error:
        raise missing_node_package(error) from error
    return load_identity(folder).age_identity


def _settings(config: Config, name: str) -> Mapping[str, Any]:
    """The user's own table; this machine's also knows the node's threads and where bases are kept."""
    own = {key: value for key, value in config.backends.get(name, {}).items() if key != KIND}
    if name != "local":
        return own
    return {"threads": config.training.threads, "cache": str(config.home / BASES_FOLDER), **own}


def _real_parts(config: Config, stores: Stores) -> Parts:
    from elias.wiring.corpus import open_blobs

    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        from elias.wiring.attest import attest

        return attest(config, stores).admit(run, segments, out).digest

    return Parts(archive=write_trainer_archive, finish=finish, blobs=open_blobs(config, stores))
