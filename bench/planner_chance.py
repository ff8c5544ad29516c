"""What it costs to want deadlines kept more surely: the planner with each wanted chance, in the same worlds.

    python bench/planner_chance.py --chances 0.5 0.9 0.99 --worlds 20
A run's chance is what `elias train --chance` says. A row for each, summed over the worlds; lines are kept in `--out`.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from planner import measure, read_lines, world_options, write_lines
from planner_draw import SCARCITIES, scarcity_of

CHANCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def main() -> int:
    parser = world_options(__doc__, ".bench/planner_chance.jsonl")
    parser.add_argument("--chances", type=float, nargs="+", default=CHANCES)
    given = parser.parse_args()
    size, seeds = (given.runs, given.weeks), range(given.first, given.first + given.worlds)
    known = {(line["seed"], line["runs"], line["weeks"], line["chance"]): line for line in read_lines(given.out)}
    asked = [(seed, *size, chance) for seed in seeds for chance in given.chances]
    new = [key for key in asked if key not in known]
    with ProcessPoolExecutor(given.workers) as pool:
        for key, told in zip(new, pool.map(_one, new), strict=True):
            known[key] = told
            write_lines(given.out, known.values())
            print(json.dumps({name: told[name] for name in ("seed", "chance", "seconds")}), flush=True)
    for kind in SCARCITIES:
        _show(kind, [known[key] for key in asked if scarcity_of(key[0]) == kind])
    return 0


def _one(key: tuple[int, int, int, float]) -> dict[str, Any]:
    seed, runs, weeks, chance = key
    told = measure("ours", seed, runs, weeks, chance)
    return {"bench": "planner chance", "seed": seed, "runs": runs, "weeks": weeks, "chance": chance, **told}


def _show(kind: str, lines: list[dict[str, Any]]) -> None:
    if not lines:
        return
    print(f"\n{kind}: {sum(line['runs'] for line in lines) // len({line['chance'] for line in lines})} runs")
    print(f"{'wanted':>8} {'in time':>8} {'dollars':>9} {'a run':>7}")
    for chance in sorted({line["chance"] for line in lines}):
        own = [line for line in lines if line["chance"] == chance]
        kept, dollars = sum(len(line["in_time"]) for line in own), sum(line["dollars"] for line in own)
        print(f"{chance:>8.0%} {kept:>8} {dollars:>9.2f} {dollars / max(kept, 1):>7.3f}")


if __name__ == "__main__":
    sys.exit(main())
