"""The planner beside simple policies and a clairvoyant bound, in simulated worlds: a JSON line a world and policy.

Each world is eight weeks of places like Kaggle, SageMaker and this machine, drawn by its seed (docs/planner-bench.md);
those with an odd seed are roomy, those with an even one tight. The coordinator, stores and ledger are the real ones.
`--runs`, `--worlds` and `--first` say how much; lines that are in `--out` already are not made again, so that a long
bench can be cut into short ones.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from planner_bound import clairvoyant, least_dollars
from planner_draw import scarcity_of
from planner_foreknown import foreknown
from planner_policies import POLICIES
from planner_world import Outcome, fresh, outcomes

from elias_trainer.contract import write_whole

MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one: a simulation writes a lot, and keeps nothing."""


def world_options(description: str | None, out: str) -> argparse.ArgumentParser:
    """Which worlds are lived, and where their lines are kept."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="the first world's seed")
    parser.add_argument("--runs", type=int, default=50, help="in each world")
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def main() -> int:
    parser = world_options(__doc__, ".bench/planner.jsonl")
    parser.add_argument("--seconds", type=float, help="begin no more worlds after that")
    parser.add_argument(
        "--again",
        action="append",
        default=[],
        choices=[policy.name for policy in POLICIES],
        help="this policy anew, in the lines that are there",
    )
    given = parser.parse_args()
    lines = {(line["seed"], line["runs"], line["weeks"]): line for line in read_lines(given.out)}
    size = given.runs, given.weeks
    seeds = range(given.first, given.first + given.worlds)
    began = time.monotonic()
    with ProcessPoolExecutor(given.workers) as pool:
        for seed in seeds:
            lived = lines.get((seed, *size), {}).get("policies", {})
            kept = {name: found for name, found in lived.items() if name not in given.again}
            if len(kept) == len(POLICIES):
                continue
            if given.seconds is not None and time.monotonic() - began > given.seconds:
                break
            line = one_world(pool, seed, *size, kept)
            lines[seed, *size] = line
            write_lines(given.out, lines.values())
            shown = ("seed", "scarcity", "runs", "in_time_at_most", "seconds")
            print(json.dumps({k: line[k] for k in shown}), flush=True)
    chosen = [lines[seed, *size] for seed in seeds if (seed, *size) in lines]
    print(table([{**line, "told": told_everything(line["seed"], *size)} for line in chosen]))
    return 0


def one_world(pool: Executor, seed: int, runs: int, weeks: int, kept: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All policies in one world, and the bound; those that are kept are not lived again."""
    began, names = time.monotonic(), [policy.name for policy in POLICIES if policy.name not in kept]
    count = len(names)
    lived = dict(zip(names, pool.map(measure, names, [seed] * count, [runs] * count, [weeks] * count), strict=True))
    found = {policy.name: kept.get(policy.name) or lived[policy.name] for policy in POLICIES}
    with tempfile.TemporaryDirectory(dir=_memory()) as home:
        simulation = fresh(Path(home), seed, runs=runs, weeks=weeks, scarcity=scarcity_of(seed))
        bound = clairvoyant(simulation, {name: told["in_time"] for name, told in found.items()})
        simulation.close()
    for name, told in found.items():
        told["least_dollars"] = round(bound.least[name], 4)
    return {
        "bench": "planner",
        "seed": seed,
        "scarcity": scarcity_of(seed),
        "runs": runs,
        "weeks": weeks,
        "in_time_at_most": round(bound.in_time, 2),
        "policies": found,
        "seconds": round(time.monotonic() - began, 1),
    }


def told_everything(seed: int, runs: int, weeks: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=_memory()) as home:
        simulation = fresh(Path(home), seed, runs=runs, weeks=weeks, scarcity=scarcity_of(seed))
        found = foreknown(simulation)
        least = least_dollars(simulation, found.in_time)
        simulation.close()
    return {"in_time": found.in_time, "dollars": round(found.dollars, 4), "least_dollars": round(least, 4)}


def measure(name: str, seed: int, runs: int, weeks: int, chance: float | None = None) -> dict[str, Any]:
    """A policy's life in a world; `chance` is with which runs want their deadlines kept, where it heeds that."""
    began, policy = time.monotonic(), next(policy for policy in POLICIES if policy.name == name)
    with tempfile.TemporaryDirectory(dir=_memory()) as home:
        made = {"make": policy.coordinator(), "allowed": policy.allowed, "scarcity": scarcity_of(seed)}
        simulation = fresh(Path(home), seed, runs=runs, weeks=weeks, chance=chance, **made)
        simulation.live().work()
        found = outcomes(simulation)
        simulation.close()
    return {**_summary(found), "seconds": round(time.monotonic() - began, 1)}


def _summary(found: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "in_time": [o.spec.number for o in found if o.is_in_time],
        "dollars": round(sum(o.spent.micro_usd for o in found) / 1e6, 4),
        "hours": round(sum(o.hours for o in found), 2),
        "wasted_hours": round(sum(o.hours - o.useful_hours for o in found), 2),
        "hours_on_lost_runs": round(sum(o.hours for o in found if not o.is_in_time), 2),
        "reasons": sorted({(o.reason or str(o.state))[:120] for o in found if str(o.state) != "done"}),
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    kinds = sorted({line["scarcity"] for line in lines})
    parts = [[line for line in lines if line["scarcity"] == kind] for kind in kinds]
    found = ["\n".join(_rows(part, kind)) for kind, part in zip(kinds, parts, strict=True)]
    if len(kinds) > 1:
        found.append("\n".join(_rows(lines, "all")))
    notes = (
        "least: what the same runs in time cost at least, for one who knows the future; above: dollars over it\n"
        "missed: deadlines that it lost and another of the five kept"
    )
    return "\n\n".join([*found, notes]) if found else "no world was simulated"


def _rows(lines: Sequence[dict[str, Any]], kind: str) -> Iterator[str]:
    total = sum(line["runs"] for line in lines)
    yield f"{kind}: {total} runs in {len(lines)} worlds of {lines[0]['weeks']} weeks"
    widths = {"in time": 9, "dollars": 9, "a run": 7, "least": 9, "above": 7, "missed": 7, "wasted h": 9, "hours": 9}
    yield " ".join([f"{'policy':24}", *(f"{head:>{width}}" for head, width in widths.items())])
    for name in lines[0]["policies"]:
        told = [line["policies"][name] for line in lines]
        wasted, hours = sum(t["wasted_hours"] for t in told), sum(t["hours"] for t in told)
        missed = sum(len(_kept_by_others(line, line["policies"][name])) for line in lines)
        yield f"{name:24} {_money(told)} {missed:>7} {wasted:>9.1f} {hours:>9.1f}"
    missed = sum(len(_kept_by_others(line, line["told"])) for line in lines)
    yield f"{'told everything, a plan':24} {_money([line['told'] for line in lines])} {missed:>7}"
    most = sum(int(line["in_time_at_most"] + 1e-6) for line in lines)
    yield f"{'clairvoyant, at most':24} {most:>9}"


def _money(told: Sequence[dict[str, Any]]) -> str:
    kept, dollars = sum(len(t["in_time"]) for t in told), sum(t["dollars"] for t in told)
    least = sum(t["least_dollars"] for t in told)
    above = f"{dollars / least - 1:7.0%}" if least else f"{'-':>7}"
    each = f"{dollars / kept:7.3f}" if kept else f"{'-':>7}"
    return f"{kept:>9} {dollars:>9.2f} {each} {least:>9.2f} {above}"


def _kept_by_others(line: dict[str, Any], own: dict[str, Any]) -> set[int]:
    """The deadlines that this one lost and some policy kept."""
    return set().union(*(told["in_time"] for told in line["policies"].values())) - set(own["in_time"])


def _memory() -> Path | None:
    return MEMORY if os.access(MEMORY, os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
