"""A few steps of the real trainer on full sequences, as others measure too."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias_trainer.contract import (
    BaseModel,
    Input,
    Job,
    Recipe,
    Result,
    canonical_json,
    digest_file,
    from_json,
    to_json,
    write_whole,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShortRun:
    result: Result
    events: list[dict[str, Any]]

    @property
    def peak_bytes(self) -> int:
        return max(int(event["memory_bytes"]) for event in self.events if event["kind"] == "step")


def short_run(base: str, recipe: Recipe, cache: Path) -> ShortRun:
    """`recipe.max_steps` steps, every example longer than a sequence."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "def area(width, height):\n    return width * height\n" * recipe.sequence_length
        messages = [{"role": "user", "content": "write code"}, {"role": "assistant", "content": text}]
        lines = [
            {"id": str(n), "session": str(n), "source": "bench", "messages": messages, "weight_ppm": 10**6}
            for n in range(2 * recipe.batch_size * recipe.accumulation)
        ]
        write_whole(folder / "corpus.jsonl", b"".join(canonical_json(line) + b"\n" for line in lines))
        corpus = Input(path="corpus.jsonl", digest=digest_file(folder / "corpus.jsonl"))
        job = Job(run="bench", segment="bench-0001", base=BaseModel(reference=base), corpus=corpus, recipe=recipe)
        write_whole(folder / "job.json", to_json(job))
        words = ["train", "--job", str(folder / "job.json"), "--out", str(folder / "out"), "--cache", str(cache)]
        subprocess.run([sys.executable, "-m", "elias_trainer", *words], check=True, stdout=subprocess.DEVNULL)
        result = from_json(Result, (folder / "out" / "result.json").read_bytes())
        events = [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]
    assert result.step == recipe.max_steps
    return ShortRun(result=result, events=events)
