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
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from planner_bound import clairvoyant
from planner_foreknown import foreknown
from planner_policies import POLICIES
from planner_world import Outcome, fresh, outcomes

MEMORY = Path("/dev/shm")
"""A file system in memory, where there is one: a simulation writes a lot, and keeps nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="the first world's seed")
    parser.add_argument("--runs", type=int, default=50, help="in each world")
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, help="begin no more worlds after that")
    parser.add_argument("--out", type=Path, default=Path(".bench/planner.jsonl"))
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    size = (given.runs, given.weeks)
    known = {line["seed"] for line in lines if (line["runs"], line["weeks"]) == size}
    seeds = range(given.first, given.first + given.worlds)
    missing = [(seed, *size) for seed in seeds if seed not in known]
    began = time.monotonic()
    with ProcessPoolExecutor(given.workers) as pool, given.out.open("a") as stream:
        for asked in missing:
            if given.seconds is not None and time.monotonic() - began > given.seconds:
                break
            line = one_world(pool, *asked)
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            lines.append(line)
            told = ("seed", "scarcity", "runs", "in_time_at_most", "seconds")
            print(json.dumps({k: line[k] for k in told}), flush=True)
    chosen = [line for line in lines if (line["runs"], line["weeks"]) == size and line["seed"] in seeds]
    print(table([{**line, "told": told_everything(line["seed"], *size)} for line in chosen]))
    return 0


def one_world(pool: Executor, seed: int, runs: int, weeks: int) -> dict[str, Any]:
    """All policies in one world, and the bound."""
    began, names = time.monotonic(), [policy.name for policy in POLICIES]
    count = len(names)
    told = pool.map(_measure, names, [seed] * count, [runs] * count, [weeks] * count)
    found = dict(zip(names, told, strict=True))
    with tempfile.TemporaryDirectory(dir=_memory()) as home:
        simulation = fresh(Path(home), seed, runs=runs, weeks=weeks, scarcity=scarcity_of(seed))
        bound = clairvoyant(simulation, {name: told["in_time"] for name, told in found.items()})
        simulation.close()
    for name, told in found.items():
        told["least_dollars"] = round(bound.least[name], 4)
    kept = {run for name, told in found.items() if name != "ours" for run in told["in_time"]}
    return {
        "bench": "planner",
        "seed": seed,
        "scarcity": scarcity_of(seed),
        "runs": runs,
        "weeks": weeks,
        "in_time_at_most": round(bound.in_time, 2),
        "policies": found,
        "lost_by_ours_kept_by_a_simple_one": sorted(kept - set(found["ours"]["in_time"])),
        "seconds": round(time.monotonic() - began, 1),
    }


def told_everything(seed: int, runs: int, weeks: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=_memory()) as home:
        simulation = fresh(Path(home), seed, runs=runs, weeks=weeks, scarcity=scarcity_of(seed))
        found = foreknown(simulation)
        simulation.close()
    return {"in_time": found.in_time, "dollars": round(found.dollars, 4)}


def scarcity_of(seed: int) -> str:
    return "roomy" if seed % 2 else "tight"


def _measure(name: str, seed: int, runs: int, weeks: int) -> dict[str, Any]:
    began, policy = time.monotonic(), next(policy for policy in POLICIES if policy.name == name)
    with tempfile.TemporaryDirectory(dir=_memory()) as home:
        made = {"make": policy.coordinator(), "allowed": policy.allowed, "scarcity": scarcity_of(seed)}
        simulation = fresh(Path(home), seed, runs=runs, weeks=weeks, **made)
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
    note = "least: what the same runs in time cost at least, for one who knows the future; above: dollars over it"
    return "\n\n".join([*found, note]) if found else "no world was simulated"


def _rows(lines: Sequence[dict[str, Any]], kind: str) -> Iterator[str]:
    total = sum(line["runs"] for line in lines)
    yield f"{kind}: {total} runs in {len(lines)} worlds of {lines[0]['weeks']} weeks"
    heads = ("in time", 9), ("dollars", 9), ("a run", 7), ("least", 9), ("above", 7), ("wasted h", 9), ("hours", 9)
    yield " ".join([f"{'policy':24}", *(f"{head:>{width}}" for head, width in heads)])
    for name in lines[0]["policies"]:
        told = [line["policies"][name] for line in lines]
        kept, dollars = sum(len(t["in_time"]) for t in told), sum(t["dollars"] for t in told)
        least = sum(t["least_dollars"] for t in told)
        above = f"{dollars / least - 1:7.0%}" if least else f"{'-':>7}"
        each = f"{dollars / kept:7.3f}" if kept else f"{'-':>7}"
        wasted, hours = sum(t["wasted_hours"] for t in told), sum(t["hours"] for t in told)
        yield f"{name:24} {kept:>9} {dollars:>9.2f} {each} {least:>9.2f} {above} {wasted:>9.1f} {hours:>9.1f}"
    kept = sum(len(line["told"]["in_time"]) for line in lines)
    dollars = sum(line["told"]["dollars"] for line in lines)
    yield f"{'told everything, a plan':24} {kept:>9} {dollars:>9.2f} {dollars / max(kept, 1):7.3f}"
    most = sum(int(line["in_time_at_most"] + 1e-6) for line in lines)
    yield f"{'clairvoyant, at most':24} {most:>9}"
    lost = sum(len(line["lost_by_ours_kept_by_a_simple_one"]) for line in lines)
    yield f"deadlines that ours lost and a simple policy kept: {lost}"


def _memory() -> Path | None:
    return MEMORY if os.access(MEMORY, os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
