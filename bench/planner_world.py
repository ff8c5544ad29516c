"""The real coordinator, stores and ledger of a node, in a simulated world: what the planner's benches drive."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from planner_draw import BASE, RECIPE, SCARCITIES, RunSpec, draw_runs, make_places

from elias.config import Config
from elias.domain.corpus import Example, Message, example_line
from elias.domain.label import Label
from elias.domain.run import HYBRID, Bounds, Run, RunState, Segment
from elias.domain.spend import Caps
from elias.errors import EliasError
from elias.ports.backend import Backend
from elias.ports.durable import Steps
from elias.ports.stores import RunStore
from elias.services.follow import LONGEST_QUEUE
from elias.services.foresee import seen_so_far
from elias.services.runs import Runs
from elias.services.sightings import Seen
from elias.services.spend import Purse
from elias.services.train import WORKFLOW, Coordinator, Means, Pace
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import small_corpus
from elias.testing.inline_engine import InlineMemory
from elias.testing.places.engine import SimulatedEngine, SimulatedStop
from elias.testing.places.place import NoTrouble, SimulatedPlace, Trouble
from elias.testing.places.session import ADAPTER
from elias.testing.places.world import HOUR, START, NodeClock, World, WorldClock
from elias.units import Money
from elias.wiring.stores import Stores, open_stores
from elias_trainer.contract import BaseModel, Digest, Recipe, digest_file, write_whole

ARRIVALS = "arrivals/1"
CHECKPOINT_EVERY = timedelta(minutes=20)
LONGEST_SILENCE = timedelta(hours=4)
"""Between two polls of a segment that goes on, in simulated time; the coordinator's own pace at every change."""


@dataclass(kw_only=True)
class Simulation:
    """One world and one node in it; `memory`, stores and places outlive a life of the node."""

    home: Path
    world: World
    specs: Sequence[RunSpec]
    places: Mapping[str, SimulatedPlace]
    clock: WorldClock
    make: Callable[[Means, Pace], Coordinator] = Coordinator
    allowed: Sequence[str] = ("local", "kaggle", "sagemaker")
    caps: Caps = field(default_factory=lambda: Caps(run=Money.usd(40)))
    trouble: Trouble = field(default_factory=NoTrouble)
    dress: Callable[[Stores], Any] = lambda stores: stores
    """What a test puts around the stores."""
    memory: InlineMemory = field(default_factory=InlineMemory)
    chance: float | None = None
    """With which all runs want their deadlines kept; None is the planner's own."""
    wakes: Sequence[datetime] = ()
    """Moments at which every step in the middle of a wait looks up."""

    def __post_init__(self) -> None:
        self.node_clock = NodeClock(self.clock)
        self.patience: dict[str, datetime] = {}
        self.blobs = FolderBlobs(self.home / "blobs")
        self.open = open_stores(Config(home=self.home))
        self.stores = self.dress(self.open)
        self.corpus = replace(small_corpus(self.blobs, Label.PUBLIC, START), train=self.blobs.put(_full_examples()))
        self.stores.corpora.add(self.corpus)
        self._seen: tuple[datetime, Seen] | None = None
        self.recalled = cast(RunStore, _Recalled(self.stores.runs))

    def live(self) -> Node:
        """A new life of the node: its process, its engine, its coordinator; all else is as it was left."""
        return Node(self)

    def close(self) -> None:
        self.open.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def run_of(self, spec: RunSpec) -> Run:
        recipe = Recipe(**{f: getattr(RECIPE, f) for f in RECIPE.__dataclass_fields__} | {"max_steps": spec.steps})
        return Run(
            id=spec.id,
            created_at=spec.arrives,
            strategy=HYBRID,
            base=BaseModel(reference=BASE),
            recipe=recipe,
            corpus=self.corpus.digest,
            label=Label.PUBLIC,
            bounds=Bounds(by=spec.deadline if spec.is_bound else None, chance=self.chance, budget=spec.budget),
            checkpoint_every=CHECKPOINT_EVERY,
        )

    def backends(self, strategy: str) -> Mapping[str, Backend]:
        return {name: self.places[name] for name in self.allowed}

    def seen(self) -> Seen:
        """Read from the store every two simulated hours: it is the same for all runs."""
        now = self.clock.now()
        if self._seen is None or now - self._seen[0] > 2 * HOUR:
            self._seen = (now, seen_so_far(self.recalled))
        return self._seen[1]

    def finish(self, run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        return digest_file(out / ADAPTER)

    def purse(self) -> Purse:
        return _OwnCaps(store=self.stores.spend, caps=lambda: self.caps, clock=self.node_clock)

    def quiet(self, key: str) -> datetime | None:
        """Until when the run's wait or its segment has no news; never past a moment at which all look up."""
        now = self.clock.now()
        wake = min((at for at in self.wakes if at > now), default=None)
        if (waits := self.patience.get(key)) is not None:
            until = waits - self.node_clock.skew  # the node's clock may be set while it waits
            return min(until, wake) if wake else until
        segments = self.open.runs.segments(key)
        if not segments or segments[-1].state.is_final or segments[-1].handle is None:
            return None
        place = self.places[segments[-1].backend]
        if (until := place.out_until()) is not None:
            return until
        change = place.next_change(segments[-1].handle) or now + timedelta(minutes=10)
        session = place.sessions.get(segments[-1].handle)
        if session is not None and session.state(now).is_final:
            return None
        silence = LONGEST_QUEUE if session is not None and session.begins_at is None else LONGEST_SILENCE
        return min(at for at in (change, now + silence, wake) if at is not None)


class _Recalled:
    """A store of runs that keeps in mind what no longer changes in it: only to read it quickly."""

    def __init__(self, store: RunStore) -> None:
        self._store, self._ended, self._events = store, dict[str, Sequence[Segment]](), dict[str, Any]()
        self.list, self.get = store.list, store.get

    def segments(self, run: str) -> Sequence[Segment]:
        if run in self._ended:
            return self._ended[run]
        found = self._store.segments(run)
        if self._store.get(run).state is RunState.DONE:
            self._ended[run] = found
        self._events |= {s.key: None for s in found if s.state.is_final and s.key not in self._events}
        return found

    def events(self, key: str) -> Sequence[Mapping[str, Any]]:
        if self._events.get(key) is not None:
            return cast(Sequence[Mapping[str, Any]], self._events[key])
        found = self._store.events(key)
        if key in self._events:
            self._events[key] = found
        return found


class _OwnCaps(Purse):
    """A run without a budget spends nothing, whatever the node allows the others."""

    def _caps(self, run: Run) -> Caps:
        return super()._caps(run) if run.bounds.budget is not None else Caps()


class Node:
    def __init__(self, simulation: Simulation) -> None:
        self.simulation = sim = simulation
        self.engine = SimulatedEngine(sim.clock, sim.memory)
        means = Means(
            runs=sim.stores.runs,
            corpora=sim.stores.corpora,
            blobs=sim.blobs,
            backends=sim.backends,
            archive=lambda path: write_whole(path, b"in place of the trainer's archive"),
            finish=sim.finish,
            folders=sim.home / "runs",
            clock=sim.node_clock,
            node="simulated",
            purse=sim.purse(),
            seen=sim.seen,
        )
        self.coordinator = sim.make(means, Pace(checkpoint_every=CHECKPOINT_EVERY))
        planning = self.coordinator.planning
        planning.foresight = planning.free_hours.foresight = replace(planning.foresight, runs=sim.recalled)
        self.coordinator.follower.stopping = SimulatedStop(self.engine, sim.clock, sim.quiet)
        self.runs = Runs(store=sim.stores.runs, engine=self.engine, backends=sim.backends, clock=sim.node_clock)
        self.engine.register(WORKFLOW, self.carry)
        self.engine.register(ARRIVALS, self.arrive)

    def work(self) -> None:
        """Until everything has ended."""
        self.engine.launch()
        self.engine.start(ARRIVALS, "arrivals")
        self.engine.join()
        self.engine.stop()

    def carry(self, steps: Steps, key: str) -> None:
        self.coordinator.carry(_Patient(steps, self.simulation), key)

    def arrive(self, steps: Steps, key: str) -> None:
        for spec in self.simulation.specs:
            now = self.simulation.clock.now()
            steps.sleep(max(timedelta(0), spec.arrives - now))
            while not steps.step("begin", lambda spec=spec: self.begin(spec)):
                steps.sleep(HOUR)

    def begin(self, spec: RunSpec) -> bool:
        """Whether it could be; whoever wants it tries again."""
        try:
            self.runs.begin(self.simulation.run_of(spec))
        except EliasError:
            return False
        return True


class _Patient:
    """Tells the simulation how long a step named `wait` will wait, so that it is slept through at once."""

    def __init__(self, steps: Steps, simulation: Simulation) -> None:
        self._steps, self._simulation = steps, simulation

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if name == "wait":
            run, until = arguments
            self._simulation.patience[run] = datetime.fromisoformat(until)
        try:
            return self._steps.step(name, function, *arguments)
        finally:
            if name == "wait":
                self._simulation.patience.pop(arguments[0], None)

    def sleep(self, span: timedelta) -> None:
        self._steps.sleep(span)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Of one run."""

    spec: RunSpec
    state: RunState
    is_in_time: bool
    """All its steps, by its deadline."""
    spent: Money
    hours: float
    """Of accelerators, by the places' own books."""
    useful_hours: float
    """Of steps that are in the last checkpoint or the adapter."""
    reason: str | None
    places: tuple[str, ...]


def outcomes(simulation: Simulation) -> Sequence[Outcome]:
    stores, found = simulation.open, list[Outcome]()
    spent: dict[str, int] = {}
    for account in stores.spend.accounts():
        spent[account.claim.run] = spent.get(account.claim.run, 0) + account.spent.micro_usd
    sessions: dict[str, list[Any]] = {}
    for place in simulation.places.values():
        for session in place.sessions.values():
            sessions.setdefault(session.job.run, []).append(session)
    for spec in simulation.specs:
        run, segments = stores.runs.get(spec.id), stores.runs.segments(spec.id)
        own = sessions.get(spec.id, [])
        last = segments[-1] if segments else None
        done = run.state is RunState.DONE and last is not None and _steps_done(own, last) >= spec.steps
        in_time = done and last is not None and last.ended_at is not None and last.ended_at <= spec.deadline
        useful = sum(max(0, _kept(segments, s) - s.start_step) * s.terms.step_s for s in own if s.terms) / 3600
        found.append(
            Outcome(
                spec=spec,
                state=run.state,
                is_in_time=in_time,
                spent=Money(spent.get(spec.id, 0)),
                hours=sum(s.hours(simulation.clock.now()) for s in own),
                useful_hours=useful,
                reason=run.reason,
                places=tuple(f"{s.backend}{'/' + s.offer if s.offer else ''}" for s in segments),
            )
        )
    return found


def _steps_done(sessions: Sequence[Any], last: Segment) -> int:
    return next((s.kept_step(s.ends_at) for s in sessions if s.key == last.key and s.ends_at), 0)


def _kept(segments: Sequence[Segment], session: Any) -> int:
    own = next((s for s in segments if s.key == session.key), None)
    return own.end.step if own and own.end else session.start_step


def _full_examples() -> BinaryIO:
    """So few that copying them costs nothing, each as long as a sequence may be."""
    question, answer = Message(role="user", content="?"), Message(role="assistant", content="word " * 900)
    examples = (Example(id=f"e{n}", session="s", source="none", messages=(question, answer)) for n in range(8))
    return io.BytesIO(b"".join(map(example_line, examples)))


def fresh(
    home: Path,
    seed: int,
    *,
    runs: int,
    weeks: int = 8,
    trouble: Trouble | None = None,
    places: Callable[[World, WorldClock], dict[str, SimulatedPlace]] | None = None,
    scarcity: str = "roomy",
    **given: Any,
) -> Simulation:
    scarce = SCARCITIES[scarcity]
    world, clock = World(seed=seed, weeks=weeks, busy=scarce.inference), WorldClock()
    made = places(world, clock) if places else make_places(world, clock, trouble, scarce)
    return Simulation(
        home=home,
        world=world,
        specs=draw_runs(world, runs, scarce),
        places=made,
        clock=clock,
        trouble=trouble or NoTrouble(),
        **given,
    )
