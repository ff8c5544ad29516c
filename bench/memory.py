"""The memory model beside published and measured figures: a JSON line each, both sides and their ratio in it.

Published figures are other people's, with their source; measured ones come from the trainer, run here and now. A last
line for each base that nobody published tells what is predicted of it alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from published import FIGURES
from short_run import short_run

from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias_trainer.contract import STARTER, TINY, Method, Precision, Recipe

MEASURED = (
    (TINY, Recipe(batch_size=4, sequence_length=384, max_steps=2)),
    (STARTER, Recipe(batch_size=1, sequence_length=256, max_steps=2)),
    (STARTER, Recipe(batch_size=4, sequence_length=384, max_steps=2)),
    (STARTER, Recipe(batch_size=1, sequence_length=256, max_steps=2, gradient_checkpointing=True)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".bench/bases"), help="where the converted starter is kept")
    parser.add_argument("--published-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    for figure in FIGURES:
        if figure.peak_bytes is not None:
            predicted = footprint(figure.shape, figure.recipe, Precision.BF16).total
            beside = {"published_bytes": round(figure.peak_bytes), "ratio": round(predicted / figure.peak_bytes, 2)}
            _print(figure.what, predicted, beside | {"source": figure.source})
    for base, recipe in () if options.published_only else MEASURED:
        predicted = footprint(KNOWN_SHAPES[base], recipe, Precision.FP32).total
        peak = short_run(base, recipe, options.cache).peak_bytes
        again = ", checkpointed" if recipe.gradient_checkpointing else ""
        what = f"{base}, lora, {recipe.batch_size} x {recipe.sequence_length}{again}, CPU"
        beside = {"measured_bytes": peak, "ratio": round(predicted / peak, 2)}
        _print(what, predicted, beside | {"source": "peak RSS of the trainer, this run"})
    frugal = Recipe(method=Method.QLORA, batch_size=1, gradient_checkpointing=True)
    for name, shape in KNOWN_SHAPES.items():
        _print(f"{name}, qlora, 1 x 1024, checkpointed, GPU", footprint(shape, frugal, Precision.BF16).total, {})
    return 0


def _print(what: str, predicted: int, beside: dict[str, object]) -> None:
    print(json.dumps({"bench": "memory", "what": what, "predicted_bytes": predicted, **beside}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
