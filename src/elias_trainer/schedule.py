"""Which micro-batches a step takes and how fast it learns: from the recipe and the step's number alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

from elias_trainer.batches import Row, micro_batches
from elias_trainer.contract import Recipe, Schedule


class Plan:
    """Every optimizer step of a run. Holds no position: any step can be asked for, in any order, in any process."""

    def __init__(self, rows: Sequence[Row], recipe: Recipe) -> None:
        self._rows, self._recipe = rows, recipe
        self._epoch = lru_cache(maxsize=2)(lambda epoch: micro_batches(rows, recipe, epoch))
        self.steps_per_epoch = math.ceil(len(self._epoch(0)) / recipe.accumulation)
        wanted = recipe.max_steps
        if wanted is None:
            # Rounded first: 0.1 of 30 steps is 3, not 3.0000000000000004
            wanted = math.ceil(round(recipe.epochs * self.steps_per_epoch, 6))
        self.step_total = max(wanted, 1)

    def micro_batches(self, step: int) -> list[list[Row]]:
        """The rows of each micro-batch of step 0, 1, 2, …; an epoch's last step may have fewer."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within * self._recipe.accumulation
        chosen = self._epoch(epoch)[first : first + self._recipe.accumulation]
        return [[self._rows[index] for index in indexes] for indexes in chosen]

    def epochs_done(self, steps: int) -> float:
        return steps / self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """Rises over the warm-up so that step 0 already learns, then falls so that the last step still does."""
        peak = self._recipe.learning_rate
        warmup = math.ceil(round(self._recipe.warmup_share * self.step_total, 6))
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(self.step_total - warmup, 1)
        match self._recipe.schedule:
            case Schedule.CONSTANT:
                return peak
            case Schedule.LINEAR:
                return peak * (1.0 - done)
            case Schedule.COSINE:
                return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def dropout_seed(seed: int, step: int, number: int) -> int:
    """For the generators before micro-batch `number` of a step: what makes a step repeatable, in whichever process."""
    drawn = hashlib.sha256(f"elias dropout {seed} {step} {number}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") >> 1
