"""A coordinator over the real stores, the real local backend and the fake trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from elias.adapters.backends.local import LocalBackend
from elias.adapters.clock import SystemClock
from elias.config import Config
from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, Segment
from elias.ports.backend import Backend, BackendContext
from elias.services.runs import Wanted, new_run
from elias.services.train import Coordinator, Means, Pace
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import small_corpus
from elias.testing.fake_trainer import build_fake_trainer, fake_base
from elias.testing.journal import JournalSteps
from elias.wiring.stores import Stores, open_stores
from elias_trainer.contract import BaseModel, Digest, Recipe, digest_file


@dataclass
class World:
    home: Path
    stores: Stores
    finished: list[str] = field(default_factory=list)
    """Runs whose artifact was made, once for each time it was asked for."""
    place: Backend | None = None
    """Another backend than this machine's."""

    def __post_init__(self) -> None:
        self.blobs = FolderBlobs(self.home / "blobs")
        self.corpus = self.add_corpus(Label.SECRET)

    def add_corpus(self, label: Label) -> Corpus:
        corpus = small_corpus(self.blobs, label, SystemClock().now())
        self.stores.corpora.add(corpus)
        return corpus

    def coordinator(self, **pace: timedelta) -> Coordinator:
        """A new one, as after a crash: it shares nothing with an earlier one but the disk."""
        spans = {"poll_every": timedelta(milliseconds=20), "checkpoint_every": timedelta(seconds=0.1), **pace}
        means = Means(
            runs=self.stores.runs,
            corpora=self.stores.corpora,
            blobs=self.blobs,
            backends=self.backends,
            archive=build_fake_trainer,
            finish=self.finish,
            folders=self.home / "runs",
            clock=SystemClock(),
            node="test",
        )
        return Coordinator(means, Pace(**spans))

    def backends(self, strategy: str) -> Mapping[str, Backend]:
        home = self.home / "backends" / "local"
        context = BackendContext(name="local", node="test", home=home, settings={}, clock=SystemClock())
        return {"local": self.place or LocalBackend(context)}

    def finish(self, run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        self.finished.append(run.id)
        return digest_file(out / "adapter" / "adapter_model.safetensors")

    def run(self, steps: int = 12, base: BaseModel | None = None, **bounds: object) -> Run:
        wanted = Wanted(
            strategy="local",
            base=base or fake_base(),
            recipe=Recipe(max_steps=steps),
            bounds=replace(Bounds(), **bounds),
        )
        run = new_run(wanted, self.corpus, SystemClock())
        self.stores.runs.add(run)
        return run

    def held(self, step: int, step_s: float = 0.01) -> BaseModel:
        """A base whose trainer stays at that step until `let_go`, however late anybody looks at it."""
        (self.home / "held").touch()
        return fake_base(step_s=step_s, held=(self.home / "held", step))

    def let_go(self) -> None:
        (self.home / "held").unlink()

    def carry(self, run: Run, journal: list[tuple[str, str]] | None = None, **pace: timedelta) -> Run:
        self.coordinator(**pace).carry(JournalSteps([] if journal is None else journal), run.id)
        return self.stores.runs.get(run.id)

    def segments(self, run: Run) -> Sequence[Segment]:
        return self.stores.runs.segments(run.id)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_stores(Config(home=tmp_path)) as stores:
        yield World(tmp_path, stores)
    for process in processes_under(tmp_path):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def processes_under(home: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline", "status"])
    return [p for p in found if any(str(home) in word for word in p.info["cmdline"] or [])]
