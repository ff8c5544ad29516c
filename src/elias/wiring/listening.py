"""From Config to the places whose machines call this node: somebody has to answer them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta

from elias.config.schema import Config
from elias.errors import EliasError
from elias.ports.backend import Listens
from elias.wiring.backends import TRY_AGAIN_S, place_names
from elias.wiring.train import Training

log = logging.getLogger("elias.listening")

LOOK_EVERY = timedelta(seconds=2)


def listening(config: Config, training: Training) -> Callable[[], None]:
    """A look at every place that is configured, or that has kept something here; it answers from then on."""
    not_before: dict[str, float] = {}

    def look() -> None:
        for name in place_names(config):
            is_used = name in config.backends or (config.home / "backends" / name).is_dir()
            if not is_used or time.monotonic() < not_before.get(name, 0.0):
                continue
            try:
                place = training.places(name)[name]
                if isinstance(place, Listens):
                    place.listen()
                else:
                    not_before[name] = math.inf
            except EliasError as error:
                not_before[name] = time.monotonic() + TRY_AGAIN_S
                log.warning("listening.failed place=%s what=%s fix=%s", name, error.what, error.fix)

    return look
