"""The trainer's loop beside a bare PyTorch loop and beside TRL: tokens a second and peak memory.

    python bench/trainer.py [--tiny | --starter] [--rounds N] [--threads N]

Prints a JSON line for each comparison. Every side is a process of its own with the same model, batches and threads;
all are alive at once and take turns of a few steps in alternating order, so that what else the machine does falls on
all of them. `ratio` is the median over the rounds of ours beside the other's tokens a second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer_sides import STEPS_BEFORE

from elias_trainer.contract import (
    STARTER,
    TINY,
    BaseModel,
    Input,
    Job,
    Limits,
    Recipe,
    canonical_json,
    digest_file,
    to_json,
)

CACHE = Path(__file__).resolve().parent.parent / ".bench" / "cache"
FILL_CACHE = """
import sys; from pathlib import Path
from elias_trainer.base import find_base, model_folder; from elias_trainer.contract import BaseModel
base, cache = BaseModel(reference=sys.argv[1]), Path(sys.argv[2])
model_folder(find_base(base, cache), base, cache)
"""
"""Run beforehand, so that no side's memory holds what converting a GGUF file takes."""
OTHERS = {"bare": "a bare PyTorch loop", "trl": "TRL SFTTrainer"}


@dataclass
class Side:
    name: str
    process: subprocess.Popen[str]
    turns: list[dict[str, float]] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def tokens_per_s(self) -> float:
        return sum(turn["tokens"] for turn in self.turns) / sum(turn["seconds"] for turn in self.turns)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the side {self.name!r} ended early, with exit code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_const", const=TINY, dest="base", default=TINY)
    size.add_argument("--starter", action="store_const", const=STARTER, dest="base")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sequence-length", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--without-trl", action="store_true")
    options = parser.parse_args()
    steps_per_turn, rounds = (3, options.rounds or 12) if options.base == TINY else (1, options.rounds or 6)
    recipe = Recipe(
        batch_size=options.batch_size,
        sequence_length=options.sequence_length,
        max_steps=STEPS_BEFORE + steps_per_turn * rounds,
    )
    names = ["ours", "bare"] if options.without_trl else ["ours", "bare", "trl"]
    with tempfile.TemporaryDirectory() as scratch:
        job = write_job(Path(scratch), options.base, recipe)
        subprocess.run(
            [sys.executable, "-c", FILL_CACHE, options.base, str(CACHE)], check=True, stderr=subprocess.DEVNULL
        )
        sides = {name: start(name, job, steps_per_turn, options.threads) for name in names}
        take_turns(list(sides.values()), rounds)
    for name in names[1:]:
        line = compared(sides["ours"], sides[name])
        setting = {
            "model": options.base,
            "threads": options.threads,
            "rounds": rounds,
            "steps": rounds * steps_per_turn,
        }
        sizes = {"batch_size": recipe.batch_size, "sequence_length": recipe.sequence_length}
        print(
            json.dumps({"bench": "trainer", "ours": "elias_trainer", "other": OTHERS[name], **line, **setting, **sizes})
        )


def write_job(folder: Path, base: str, recipe: Recipe) -> Path:
    """Prompts and answers out of the standard library's own source: the same on every machine with this Python."""
    lines = []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for start in range(0, min(len(text) - 1200, 12_000), 1200):
            question, answer = text[start : start + 300], text[start + 300 : start + 1200 - len(lines) % 7 * 100]
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append(canonical_json({"id": f"e{len(lines)}", "messages": messages}))
    corpus = folder / "corpus.jsonl"
    corpus.write_bytes(b"".join(line + b"\n" for line in lines))
    job = Job(
        run="bench",
        segment="bench-0001",
        base=BaseModel(reference=base),
        corpus=Input(path=corpus.name, digest=digest_file(corpus)),
        recipe=recipe,
        limits=Limits(checkpoint_every_s=1e9),
    )
    (folder / "job.json").write_bytes(to_json(job))
    return folder / "job.json"


def start(name: str, job: Path, steps_per_turn: int, threads: int) -> Side:
    worker = Path(__file__).with_name("trainer_sides.py")
    options = {"--side": name, "--job": job, "--cache": CACHE, "--steps-per-turn": steps_per_turn, "--threads": threads}
    command = [sys.executable, str(worker), *(str(word) for pair in options.items() for word in pair)]
    return started(name, command)


def started(name: str, command: Sequence[str]) -> Side:
    """Wait until it is ready: loading is not what is measured, and would disturb."""
    calm = {"OMP_WAIT_POLICY": "PASSIVE", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    calm["PYTHONWARNINGS"] = "ignore::FutureWarning"
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **calm}
    )
    side = Side(name, process)
    side.hear()
    return side


def take_turns(sides: list[Side], rounds: int) -> None:
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            side.go()
            side.turns.append(side.hear())
    for side in sides:
        side.go()
        side.peak_bytes = side.hear()["peak_bytes"]
        side.process.wait()


def compared(ours: Side, other: Side) -> dict[str, Any]:
    ratios = sorted(theirs["seconds"] / mine["seconds"] for mine, theirs in zip(ours.turns, other.turns, strict=True))
    quarter = len(ratios) // 4
    assert [turn["tokens"] for turn in ours.turns] == [turn["tokens"] for turn in other.turns], "not the same batches"
    return {
        "tokens_per_s": round(ours.tokens_per_s, 1),
        "other_tokens_per_s": round(other.tokens_per_s, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(ratios[quarter], 3), round(ratios[-1 - quarter], 3)],
        "peak_bytes": ours.peak_bytes,
        "other_peak_bytes": other.peak_bytes,
        "memory_ratio": round(ours.peak_bytes / other.peak_bytes, 3),
    }


if __name__ == "__main__":
    main()
