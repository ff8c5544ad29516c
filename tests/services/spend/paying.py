"""A coordinator that pays, over the real stores and the real local backend with a price.

As a program (HOME RUN) it carries that run, and dies by SIGKILL at the first boundary that no earlier life died at.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.local import LocalBackend
from elias.adapters.clock import SystemClock
from elias.config import Config
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, Segment
from elias.domain.spend import Caps, EntryKind, held, is_open
from elias.ports.backend import BackendContext
from elias.services.runs import Wanted, new_run
from elias.services.spend import Purse
from elias.services.train import Coordinator, Means, Pace
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import small_corpus
from elias.testing.fake_trainer import build_fake_trainer, fake_base
from elias.testing.journal import JournalSteps
from elias.testing.paid_place import PaidPlace
from elias.units import FREE, Money
from elias.wiring.stores import Stores, open_stores
from elias_trainer.contract import BaseModel, Digest, Recipe, digest_file


class MovableClock:
    ahead = timedelta(0)

    def now(self) -> datetime:
        return SystemClock().now() + self.ahead

    def sleep(self, span: timedelta) -> None:
        self.ahead += span

    def move_to_noon(self) -> None:
        """So that no day ends in the middle of a test."""
        now = self.now()
        self.ahead += now.replace(hour=12, minute=0, second=0) + timedelta(days=1) - now


@dataclass
class World:
    home: Path
    stores: Stores
    caps: Caps = field(default_factory=Caps)
    clock: MovableClock = field(default_factory=MovableClock)
    kind: type[PaidPlace] = PaidPlace

    def __post_init__(self) -> None:
        self.blobs = FolderBlobs(self.home / "blobs")
        self.corpus = small_corpus(self.blobs, Label.SECRET, SystemClock().now())
        self.stores.corpora.add(self.corpus)
        home = self.home / "backends" / "rented"
        context = BackendContext(name="rented", node="test", home=home, settings={}, clock=self.clock)
        self.place = self.kind(inner=LocalBackend(context), bill=self.home / "bill.txt")
        self.purse = Purse(store=self.stores.spend, caps=lambda: self.caps, clock=self.clock)

    def coordinator(self) -> Coordinator:
        means = Means(
            runs=self.stores.runs,
            corpora=self.stores.corpora,
            blobs=self.blobs,
            backends=lambda strategy: {"rented": self.place},
            archive=build_fake_trainer,
            finish=lambda run, segments, out: digest_of(out),
            folders=self.home / "runs",
            clock=self.clock,
            node="test",
            purse=self.purse,
        )
        return Coordinator(means, Pace(poll_every=timedelta(milliseconds=20), checkpoint_every=timedelta(seconds=0.1)))

    def run(self, budget: str | None = "5", steps: int = 12, base: BaseModel | None = None, **bounds: object) -> Run:
        money = None if budget is None else Money.usd(budget)
        wanted = Wanted(
            strategy="rented",
            base=base or fake_base(),
            recipe=Recipe(max_steps=steps),
            bounds=replace(Bounds(budget=money), **bounds),
        )
        run = new_run(wanted, self.corpus, self.clock)
        self.stores.runs.add(run)
        return run

    def carry(self, run: Run, steps: JournalSteps | None = None) -> Run:
        self.coordinator().carry(steps or JournalSteps([]), run.id)
        return self.stores.runs.get(run.id)

    def segments(self, run: Run) -> list[Segment]:
        return list(self.stores.runs.segments(run.id))

    def spent(self, run: Run) -> Money:
        return self.stores.spend.usage(self.clock.now(), run.id).run.spent

    def held(self, run: Run) -> Money:
        return self.stores.spend.usage(self.clock.now(), run.id).run.reserved

    def check_books(self) -> None:
        """Every micro-dollar is held, settled or given back, each key is settled once, and the bill says the same."""
        by_key: dict[str, list[Any]] = defaultdict(list)
        for line in self.stores.spend.entries():
            by_key[line.key].append(line)
        for key, lines in by_key.items():
            sums = {kind: sum((e.amount for e in lines if e.kind is kind), FREE) for kind in EntryKind}
            assert sums[EntryKind.RESERVE] + sums[EntryKind.OVERRUN] == (
                sums[EntryKind.SETTLE] + sums[EntryKind.RELEASE] + held(lines)
            )
            assert is_open(lines) or held(lines) == FREE
            billed = self.place.cost if key in self.place.begun() else FREE
            if not is_open(lines):
                assert sums[EntryKind.SETTLE] == billed, f"{key} was settled with {sums[EntryKind.SETTLE]}"
        assert set(self.place.begun()) <= by_key.keys(), "begun without a reservation"
        assert len(self.place.begun()) == len(set(self.place.begun())), "begun twice"


def digest_of(out: Path) -> Digest:
    return digest_file(out / "adapter" / "adapter_model.safetensors")


class Deadly:
    """Passes every call on, and kills this process before and after those named, once each over all lives."""

    def __init__(self, inner: Any, names: tuple[str, ...], died_at: Path) -> None:
        self._inner, self._names, self._died_at = inner, names, died_at
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._calls += 1
            moment = f"{name} {_which(arguments[0]) if name == 'put_segment' else self._calls}"
            self._boundary(f"before {moment}")
            answer = found(*arguments, **named)
            if name in ("reserve", "submit", "settle"):  # after the others is before the next
                self._boundary(f"after {moment}")
            return answer

        return call

    def _boundary(self, line: str) -> None:
        if line not in (self._died_at.read_text().splitlines() if self._died_at.exists() else []):
            with self._died_at.open("a") as stream:
                stream.write(f"{line}\n")
            os.kill(os.getpid(), signal.SIGKILL)


def _which(segment: Segment) -> str:
    return f"{segment.state} {'taken' if segment.handle else 'sent' if segment.sent_at else 'planned'}"


def main(home: Path, run_id: str) -> None:
    with open_stores(Config(home=home)) as stores:
        world = World(home, stores)
        died_at = home / "died_at.txt"
        world.stores = replace(
            stores,
            runs=Deadly(stores.runs, ("put_segment",), died_at),
            spend=Deadly(stores.spend, ("reserve", "settle"), died_at),
        )
        world.purse = replace(world.purse, store=world.stores.spend)
        world.place = Deadly(world.place, ("submit", "fetch"), died_at)
        world.coordinator().carry(JournalSteps([]), run_id)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
