"""From Config to training: the places, the coordinator and the engine that carries it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.config.schema import Config
from elias.domain.corpus import Corpus
from elias.domain.plan import Plan
from elias.domain.run import Run, Segment
from elias.errors import EliasError
from elias.ports.backend import Listens
from elias.ports.durable import DurableEngine
from elias.ports.stores import BlobStore
from elias.services.foresee import seen_so_far
from elias.services.run_share import RunShare
from elias.services.runs import Runs, Wanted, new_run
from elias.services.train import WORKFLOW, Coordinator, Means, Pace
from elias.units import Clock
from elias.wiring.backends import Backends
from elias.wiring.guard import GuardedPlaces
from elias.wiring.spend import open_purse
from elias.wiring.stores import Stores, open_engine, open_stores
from elias_trainer.contract import STARTER, Digest

RUNS_FOLDER = "runs"
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
    unmade: Callable[[], Mapping[str, EliasError]]
    """The configured places that could not be made when they were last asked for, and why."""
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
        return self.coordinator.planning.preview(new_run(wanted, corpus, self.coordinator.means.clock))

    def plan_ahead(self, wanted: Wanted, corpus: Corpus) -> Plan:
        """The whole run from segment to segment: when, where, for how much and how likely; and what else there is."""
        return self.coordinator.planning.look_ahead(new_run(wanted, corpus, self.coordinator.means.clock))


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
    made = Backends(config, clock)
    backends = GuardedPlaces(config=config, clock=clock, places=made)
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
        keeps_free_hours=config.training.keep_free_hours,
    )
    pace = Pace(lease=config.training.lease, checkpoint_every=config.training.checkpoint_every)
    runs = Runs(store=stores.runs, engine=engine, backends=backends, clock=clock, node=config.node.name)
    coordinator = Coordinator(means, pace)
    return Training(
        stores=stores, engine=engine, coordinator=coordinator, runs=runs, places=backends, unmade=made.unmade
    )


def default_base(config: Config) -> tuple[str, str | None]:
    """The base where none was asked for, and one line about it when it is not the one for real use."""
    if config.training.base:
        return config.training.base, None
    from elias.adapters.hardware import gpus

    if gpus():
        return REAL_BASE, None
    return STARTER, f"no GPU here: training `{STARTER}` (SmolLM2-135M) instead of {REAL_BASE}; --base chooses another"


def _real_parts(config: Config, stores: Stores) -> Parts:
    from elias.wiring.corpus import open_blobs

    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        from elias.wiring.attest import attest

        return attest(config, stores).admit(run, segments, out).digest

    return Parts(archive=write_trainer_archive, finish=finish, blobs=open_blobs(config, stores))
