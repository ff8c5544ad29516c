"""Weeks of a node's life with everything that goes wrong, in simulated time, and what must hold all the same.

At random moments the node is killed between any two calls to a place or a store (its engine's memory is all that is
left of it), the network is gone, an order's answer is lost, the clock jumps, the disk is full. Then the stores' rows
and the places' own books are compared, by code that shares nothing with the coordinator: see `violations`.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import sqlite3
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from planner_draw import SCARCITIES, scarcity_of
from planner_world import ARRIVALS, Node, Simulation, fresh

from elias.domain.spend import Caps
from elias.errors import BackendError, DiskFull
from elias.ports.durable import Steps
from elias.services.books import Books
from elias.testing.places.engine import Killed
from elias.testing.places.world import HOUR, START, Spell, World, spell_at
from elias.units import Money

PERSON = "person/1"
PERSON_LOOKS = 3 * HOUR
WRITES = ("add", "update", "put_segment", "append_events", "reserve", "settle", "correct")
DAY_CAP, RUN_CAP = Money.usd(30), Money.usd(12)


@dataclass
class Chaos:
    """Decides by its own seed; the same seed goes wrong in the same way."""

    world: World
    now: Any = None
    """The true time."""
    calls_a_kill: float = 400.0
    lost_answers: float = 0.05
    node: Node | None = None
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.drawn = self.world.random("chaos")
        self.no_network = self._spells("network", timedelta(days=3), timedelta(hours=1))
        self.full_disk = self._spells("disk", timedelta(days=4), timedelta(hours=2))
        self.jumps = self._jumps()
        self.left = self.drawn.expovariate(1 / self.calls_a_kill)

    def before(self, place: str, call: str) -> None:
        self.may_kill()
        if place != "local" and call != "fetch" and spell_at(self.no_network, self.now()):
            self.counts["calls without network"] += 1
            raise BackendError("the network is gone", fix="wait; it is tried again")
        if call == "fetch" and spell_at(self.full_disk, self.now()):
            self.counts["fetches on a full disk"] += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    def after(self, place: str, call: str) -> None:
        # a place that costs nothing writes an order down before it sends it: its answer cannot be lost
        if call == "submit" and place == "sagemaker" and self.drawn.random() < self.lost_answers:
            self.counts["lost answers"] += 1
            raise BackendError("the connection broke before the answer", fix="wait; it is tried again")
        self.may_kill()

    def before_write(self) -> None:
        self.may_kill()
        # half of those hours not even a row fits
        spell = spell_at(self.full_disk, self.now())
        if spell and int(spell.begins.timestamp()) % 2:
            self.counts["writes on a full disk"] += 1
            raise DiskFull("no room left", fix="free some space", kept="what was written before")

    def may_kill(self) -> None:
        self.left -= 1
        if self.left <= 0 and self.node is not None:
            self.left = self.drawn.expovariate(1 / self.calls_a_kill)
            self.counts["kills"] += 1
            self.node.engine.halt()
            raise Killed

    def _spells(self, name: str, every: timedelta, mean: timedelta) -> Sequence[Spell]:
        return self.world.outages(name, every, mean)

    def _jumps(self) -> Sequence[tuple[datetime, timedelta]]:
        """The clock is set wrong, by up to a day either way, and right again after some hours."""
        found, at = list[tuple[datetime, timedelta]](), START
        while (at := at + self.drawn.expovariate(1 / 5) * timedelta(days=1)) < self.world.end:
            found.append((at, self.drawn.choice([-24, -3, -1, 1, 3, 24]) * self.drawn.random() * HOUR))
            at += self.drawn.uniform(1, 12) * HOUR
            found.append((at, timedelta(0)))
        return found


class Guarded:
    """A store behind the chaos: any write may find the disk full, or be the last thing before or after a kill."""

    def __init__(self, store: Any, chaos: Chaos) -> None:
        self._store, self._chaos = store, chaos

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in WRITES:
            return found

        def write(*arguments: Any, **named: Any) -> Any:
            self._chaos.before_write()
            answer = found(*arguments, **named)
            self._chaos.may_kill()
            return answer

        return write


class Weeks:
    """A simulation with its chaos, and a person who resumes what has stopped."""

    def __init__(self, home: Path, seed: int, *, runs: int, weeks: int, calls_a_kill: float = 400.0) -> None:
        scarcity = scarcity_of(seed)
        world = World(seed=seed, weeks=weeks, busy=SCARCITIES[scarcity].inference)
        self.chaos = chaos = Chaos(world, calls_a_kill=calls_a_kill)
        self.simulation = sim = fresh(
            home,
            seed,
            runs=runs,
            weeks=weeks,
            trouble=chaos,
            scarcity=scarcity,
            caps=Caps(run=RUN_CAP, day=DAY_CAP),
            wakes=[at for at, _ in chaos.jumps],
            dress=lambda stores: replace(stores, runs=Guarded(stores.runs, chaos), spend=Guarded(stores.spend, chaos)),
        )
        # where hours are scarce, runs without an end would pile up
        is_tight = scarcity == "tight"
        sim.specs = [replace(spec, is_bound=is_tight or spec.number % 2 == 0) for spec in sim.specs]
        chaos.now = sim.clock.now

    def live(self) -> None:
        """Life after life, until every run stands."""
        while True:
            node = self.chaos.node = self.simulation.live()
            node.engine.register(PERSON, self._person(node))
            node.engine.register("clock/1", self._set_clock)
            node.engine.launch()
            for name, key in ((ARRIVALS, "arrivals"), (PERSON, "person"), ("clock/1", "clock")):
                node.engine.start(name, key)
            is_over = node.engine.live()
            node.engine.stop()
            if is_over:
                break
        self.chaos.node = None
        self._close_books()

    def _set_clock(self, steps: Steps, key: str) -> None:
        for number, (at, skew) in enumerate(self.chaos.jumps, start=1):
            if at >= self.simulation.world.end - timedelta(weeks=1):
                return
            steps.sleep(max(timedelta(0), at - self.simulation.clock.now()))
            self.simulation.node_clock.skew = skew
            self.chaos.counts["clock jumps"] = max(number, self.chaos.counts["clock jumps"])

    def _person(self, node: Node) -> Any:
        def look(steps: Steps, key: str) -> None:
            while not steps.step("is over", self._is_over):
                steps.sleep(PERSON_LOOKS)
                for spec in self.simulation.specs:
                    steps.step("resume", lambda spec=spec: self._resume(node, spec.id))

        return look

    def _resume(self, node: Node, run: str) -> None:
        work = self.simulation.memory.work.get(run)
        if work is None or not work.has_ended or self.simulation.open.runs.get(run).state.is_final:
            return
        if spell_at(self.chaos.full_disk, self.simulation.clock.now()):
            return
        self.chaos.counts["resumed by the person"] += 1
        node.runs.resume(run)

    def _is_over(self) -> bool:
        known = {run.id: run for run in self.simulation.open.runs.list()}
        ended = all(spec.id in known and known[spec.id].state.is_final for spec in self.simulation.specs)
        return ended or self.simulation.clock.now() > self.simulation.world.end

    def _close_books(self) -> None:
        """What `elias budget reconcile` does first, on the day after."""
        sim = self.simulation
        sim.clock.sleep(timedelta(weeks=2))
        books = Books(store=sim.open.spend, runs=sim.open.runs, clock=sim.clock)
        for _ in range(3):
            sim.clock.sleep(timedelta(days=1))
            books.settle_lost(sim.places)


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    kind: str
    amount: int
    at: int
    """In microseconds, by the node's own clock."""
    run: str


def violations(simulation: Simulation, node_caps: Caps) -> Sequence[str]:
    """Of what must hold, from the database's own rows and the places' books; none is as it should be."""
    with sqlite3.connect(simulation.home / "elias.db") as rows:
        found = [*_steps(rows, simulation), *_money(rows, simulation), *_caps(rows, simulation, node_caps)]
    rows.close()
    return found


def _steps(rows: sqlite3.Connection, simulation: Simulation) -> Iterator[str]:
    """Each segment goes on from the furthest step that had come home, and the model is made of all of them."""
    books = {key: s for place in simulation.places.values() for key, s in place.sessions.items()}
    for (body,) in rows.execute("select body from runs order by id").fetchall():
        run = json.loads(body)
        own = _segments(rows, run["id"])
        home = 0
        for segment in own:
            key = f"{run['id']}-{segment['number']:04d}"
            session, start, end = books.get(key), segment.get("start"), segment.get("end")
            begun = start["step"] if start else 0
            if begun != home:
                yield f"{key} begins at step {begun}, and {home} had come home"
            if session is not None and session.start_step != begun:
                yield f"{key} was begun at step {begun}, and its place began at {session.start_step}"
            if session is not None and end is None and segment["state"] in ("done", "paused"):
                reached = session.kept_step(session.ends_at)
                if reached > begun:
                    yield f"{key} ended {segment['state']} at step {reached}, and none of that came home"
            home = max(home, end["step"] if end else 0)
        total = run["recipe"]["max_steps"]
        if run["state"] == "done":
            last = own[-1]
            made = books[f"{run['id']}-{last['number']:04d}"]
            reached = made.kept_step(made.ends_at)
            if reached < home or (run["bounds"].get("by") is None and reached != total):
                yield f"{run['id']} is done with step {reached} of {total}, and {home} had come home"
    for key, session in books.items():
        if session.state(simulation.clock.now()).value in ("paused", "done", "failed") and session.ends_at is not None:
            reached, run_id = session.kept_step(session.ends_at), session.job.run
            own = _segments(rows, run_id)
            end = next((s.get("end") for s in own if f"{run_id}-{s['number']:04d}" == key), None)
            if reached > session.start_step and end is None:
                yield f"lost: {key} got from step {session.start_step} to {reached}, and none of that came home"


def _segments(rows: sqlite3.Connection, run: str) -> list[dict[str, Any]]:
    query = "select body from segments where run = ? order by number"
    return [json.loads(body) for (body,) in rows.execute(query, (run,)).fetchall()]


def _entries(rows: sqlite3.Connection) -> Sequence[Row]:
    query = "select key, kind, amount, at, run from spend order by number"
    return [Row(*values) for values in rows.execute(query).fetchall()]


def _money(rows: sqlite3.Connection, simulation: Simulation) -> Iterator[str]:
    """Every cent that a place charges stands in the journal under its key, and no other."""
    spent: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    for row in _entries(rows):
        sign = {"reserve": 1, "overrun": 1, "settle": -1, "release": -1}.get(row.kind, 0)
        held[row.key] += sign * row.amount
        spent[row.key] += row.amount if row.kind in ("settle", "adjust") else 0
        if row.kind == "overrun":
            yield f"{row.key} was billed {row.amount} micro-dollars more than was reserved"
    charged: dict[str, int] = {}
    for place in simulation.places.values():
        charged |= {key: cost.micro_usd for key, cost in place.billed(START, simulation.clock.now()).items()}
    for key in sorted(spent.keys() | charged.keys()):
        if spent[key] != charged.get(key, 0):
            yield f"{key}: the place charges {charged.get(key, 0)} micro-dollars, the journal says {spent[key]}"
        if held[key]:
            yield f"{key}: {held[key]} micro-dollars are still held"


def _caps(rows: sqlite3.Connection, simulation: Simulation, caps: Caps) -> Iterator[str]:
    """After each reservation: what is held and spent, of the run ever and of all runs in its day."""
    budgets = {spec.id: spec.budget for spec in simulation.specs}
    held: dict[str, int] = defaultdict(int)
    spent: dict[str, int] = defaultdict(int)
    in_day: dict[Any, int] = defaultdict(int)
    owner: dict[str, str] = {}
    for row in _entries(rows):
        owner[row.key] = row.run
        held[row.key] += {"reserve": 1, "overrun": 1, "settle": -1, "release": -1}.get(row.kind, 0) * row.amount
        if row.kind == "settle":
            spent[row.run] += row.amount
            in_day[_day(row.at)] += row.amount
        if row.kind != "reserve":
            continue
        of_run = spent[row.run] + sum(amount for key, amount in held.items() if owner[key] == row.run)
        budget = budgets[row.run]
        limits = [m.micro_usd for m in (budget, caps.run) if m is not None]
        if budget is None or of_run > min(limits):
            yield f"{row.key}: its run holds and has spent {of_run}, and may {min(limits)}"
        of_day = in_day[_day(row.at)] + sum(held.values())
        if caps.day is not None and of_day > caps.day.micro_usd:
            yield f"{row.key}: the day holds and has spent {of_day}, and may {caps.day.micro_usd}"


def _day(at: Any) -> Any:
    return at // 86_400_000_000


def one(seed: int, runs: int, weeks: int, calls_a_kill: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=Path("/dev/shm") if Path("/dev/shm").is_dir() else None) as home:
        life = Weeks(Path(home), seed, runs=runs, weeks=weeks, calls_a_kill=calls_a_kill)
        life.live()
        found = violations(life.simulation, life.simulation.caps)
        states = [str(run.state) for run in life.simulation.open.runs.list()]
        charged = [p.billed(START, life.simulation.clock.now()) for p in life.simulation.places.values()]
        sessions = sum(len(place.sessions) for place in life.simulation.places.values())
        life.simulation.close()
    return {
        "bench": "planner chaos",
        "seed": seed,
        "scarcity": scarcity_of(seed),
        "runs": runs,
        "weeks": weeks,
        "states": {state: states.count(state) for state in sorted(set(states))},
        "segments begun": sessions,
        "dollars": round(sum(cost.micro_usd for of in charged for cost in of.values()) / 1e6, 4),
        **life.chaos.counts,
        "violations": list(found),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--calls-a-kill", type=float, default=400.0, help="calls between two kills, on average")
    given = parser.parse_args()
    bad = 0
    for seed in range(given.first, given.first + given.seeds):
        line = one(seed, given.runs, given.weeks, given.calls_a_kill)
        print(json.dumps(line), flush=True)
        bad += len(line["violations"])
    return 1 if bad else 0


if __name__ == "__main__":
    random.seed(0)
    sys.exit(main())
