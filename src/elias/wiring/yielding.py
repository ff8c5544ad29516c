"""From Config to what lets training on this machine make way for inference."""

from __future__ import annotations

from elias.config.schema import Config
from elias.domain.hold import YieldRule
from elias.services.demand import DemandMeter
from elias.services.habit import HabitBook
from elias.services.yielding import Yielder, Yielding
from elias.wiring.guard import habit_file
from elias.wiring.train import Training


def yielder(config: Config, training: Training, demand: DemandMeter) -> Yielder:
    """Holds the training's own places from now on."""
    from elias.adapters.hardware import on_battery

    rule = YieldRule(
        depth=config.serving.queue_bound, latency=config.serving.latency_bound, calm_for=config.serving.calm_for
    )
    means = training.coordinator.means
    battery = (lambda: False) if config.training.on_battery else on_battery
    yielding = Yielding(rule, demand.look, means.clock, battery, HabitBook(habit_file(config)).saw)
    training.places.hold = yielding.hold
    return Yielder(yielding, means.runs, means.backends)
