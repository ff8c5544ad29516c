"""The step-time model beside published and measured figures: a JSON line each, both sides and their ratio in it.

    python bench/speed.py [--published-only]

Published figures are other people's, with their source; measured ones come from the trainer, run here and now on this
machine's CPU. `ratio` is predicted over published or measured tokens a second; `within` says whether the figure lies in
the range that the estimate states. `corrected_ratio` is the same after the run's own events have corrected it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from published import FIGURES
from short_run import short_run

from elias.adapters.hardware import probe
from elias.domain.accelerators import CPU_TFLOPS_A_CORE
from elias.domain.footprint import KNOWN_SHAPES
from elias.domain.speed import Estimate, Place, precision_on, step_time
from elias.services.estimate import corrected
from elias.services.sightings import step_seconds
from elias_trainer.contract import STARTER, TINY, Method, Precision, Recipe

MEASURED = (
    (TINY, Recipe(batch_size=4, sequence_length=384, max_steps=25)),
    (STARTER, Recipe(batch_size=1, sequence_length=256, max_steps=6)),
)
UNPUBLISHED_ON = ("NvidiaTeslaT4", "NVIDIA A10G", "NVIDIA L4", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(".bench/bases"), help="where the converted starter is kept")
    parser.add_argument("--published-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    for figure in FIGURES:
        if figure.tokens_per_s is not None:
            place = Place(accelerator=figure.gpu, precision=Precision.BF16)
            told, tokens = step_time(figure.shape, figure.recipe, place), _tokens(figure.recipe)
            beside = _beside(told, tokens, figure.tokens_per_s, "published")
            _print(figure.what, told, tokens, beside | {"source": figure.source})
    for base, recipe in () if options.published_only else MEASURED:
        _measure(base, recipe, options.cache)
    frugal = Recipe(method=Method.QLORA, batch_size=1, gradient_checkpointing=True)
    for name, shape in KNOWN_SHAPES.items():
        for card in UNPUBLISHED_ON:
            told = step_time(shape, frugal, Place(accelerator=card, precision=precision_on(card, frugal)))
            _print(f"{name}, qlora, 1 x 1024, checkpointed, {card}", told, _tokens(frugal), {})
    return 0


def _measure(base: str, recipe: Recipe, cache: Path) -> None:
    cores = min(probe(Path.cwd()).cores, int(os.environ.get("OMP_NUM_THREADS") or 10**6))
    place = Place(accelerator="cpu", precision=Precision.FP32, tflops=cores * CPU_TFLOPS_A_CORE)
    told, tokens = step_time(KNOWN_SHAPES[base], recipe, place), _tokens(recipe)
    events = short_run(base, recipe, cache).events
    measured = step_seconds(events)
    assert measured is not None
    after = corrected(told, events)
    beside = _beside(told, tokens, tokens / measured.seconds, "measured")
    beside |= {"corrected_ratio": round(measured.seconds / after.likely, 2), "corrected_factor": round(after.factor, 2)}
    what = f"{base}, lora, {recipe.batch_size} x {recipe.sequence_length}, {cores} CPU cores"
    _print(what, told, tokens, beside | {"steps": measured.steps, "source": "the trainer, this run"})


def _beside(told: Estimate, tokens: int, tokens_per_s: float, whose: str) -> dict[str, object]:
    within = tokens / told.high <= tokens_per_s <= tokens / told.low
    ratio = tokens / told.likely / tokens_per_s
    return {f"{whose}_tokens_per_s": round(tokens_per_s, 1), "ratio": round(ratio, 2), "within": within}


def _tokens(recipe: Recipe) -> int:
    """Of an optimizer step, every sequence full."""
    return recipe.accumulation * recipe.batch_size * recipe.sequence_length


def _print(what: str, told: Estimate, tokens: int, beside: dict[str, object]) -> None:
    speeds = {"tokens_per_s": told.likely, "tokens_per_s_low": told.high, "tokens_per_s_high": told.low}
    predicted = {name: round(tokens / seconds, 1) for name, seconds in speeds.items()}
    print(json.dumps({"bench": "speed", "what": what, **predicted, **beside}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
