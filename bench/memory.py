"""The memory model beside published and measured figures: a JSON line each, both sides in it.

Published figures are other people's, with their source; measured ones come from the trainer, run here and now.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias_trainer.contract import (
    BaseModel,
    Input,
    Job,
    Method,
    Precision,
    Recipe,
    Result,
    canonical_json,
    digest_file,
    from_json,
    to_json,
    write_whole,
)

GIB = 2**30
LLAMA_2_7B = dataclasses.replace(KNOWN_SHAPES["deepseek-ai/deepseek-coder-6.7b-instruct"], vocabulary=32000)
LLAMA_3_8B = KNOWN_SHAPES["meta-llama/Llama-3.1-8B"]
QLORA = Recipe(method=Method.QLORA, gradient_checkpointing=True, sequence_length=1024)
PUBLISHED = (
    ("Llama-2-7B, 4-bit, batch 4 x 1024, A100", LLAMA_2_7B, QLORA, 9.0, "LLaMA-Factory wiki"),
    (
        "Llama-3.1-8B, QLoRA, batch 2 x 512, 4090",
        LLAMA_3_8B,
        dataclasses.replace(QLORA, batch_size=2, sequence_length=512, rank=8),
        7.4,
        "torchtune; its batch is assumed, not stated",
    ),
    (
        "Llama-3.1-8B, LoRA, batch 2 x 512, 4090",
        LLAMA_3_8B,
        dataclasses.replace(QLORA, method=Method.LORA, batch_size=2, sequence_length=512, rank=8),
        16.2,
        "torchtune; its batch is assumed, not stated",
    ),
)
MEASURED = (
    Recipe(batch_size=1, sequence_length=256, max_steps=2),
    Recipe(batch_size=4, sequence_length=384, max_steps=2),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".bench/bases"), help="where the converted starter is kept")
    cache = parser.parse_args().cache
    for name, shape, recipe, published_gb, source in PUBLISHED:
        predicted = footprint(shape, recipe, Precision.BF16).total
        _print(name, predicted, {"published_bytes": round(published_gb * GIB), "source": source})
    for recipe in MEASURED:
        predicted = footprint(KNOWN_SHAPES["starter"], recipe, Precision.FP32).total
        name = f"starter, LoRA, batch {recipe.batch_size} x {recipe.sequence_length}, CPU"
        _print(name, predicted, {"measured_bytes": _peak(recipe, cache), "source": "peak RSS of the trainer, this run"})
    return 0


def _print(name: str, predicted: int, other: dict[str, object]) -> None:
    beside = next(value for value in other.values() if isinstance(value, int))
    line = {"bench": "memory", "what": name, "predicted_bytes": predicted, **other}
    print(json.dumps(line | {"ratio": round(predicted / beside, 2)}), flush=True)


def _peak(recipe: Recipe, cache: Path) -> int:
    """Bytes, of two steps on full sequences."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "def area(width, height):\n    return width * height\n" * recipe.sequence_length
        messages = [{"role": "user", "content": "write code"}, {"role": "assistant", "content": text}]
        lines = [
            {"id": str(n), "session": str(n), "source": "bench", "messages": messages, "weight_ppm": 10**6}
            for n in range(8)
        ]
        write_whole(folder / "corpus.jsonl", b"".join(canonical_json(line) + b"\n" for line in lines))
        corpus = Input(path="corpus.jsonl", digest=digest_file(folder / "corpus.jsonl"))
        job = Job(run="bench", segment="bench-0001", base=BaseModel(reference="starter"), corpus=corpus, recipe=recipe)
        write_whole(folder / "job.json", to_json(job))
        words = ["train", "--job", str(folder / "job.json"), "--out", str(folder / "out"), "--cache", str(cache)]
        subprocess.run([sys.executable, "-m", "elias_trainer", *words], check=True, stdout=subprocess.DEVNULL)
        result = from_json(Result, (folder / "out" / "result.json").read_bytes())
        events = (folder / "out" / "events.jsonl").read_text().splitlines()
        steps = [event for line in events if (event := json.loads(line))["kind"] == "step"]
        assert result.step == len(steps)
        return max(int(event["memory_bytes"]) for event in steps)


if __name__ == "__main__":
    sys.exit(main())
