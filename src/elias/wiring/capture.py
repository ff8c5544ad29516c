"""From Config to capturing: a source by its name, and the store behind it."""

from __future__ import annotations

from typing import Any

from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.domain.label import Label
from elias.errors import InputError
from elias.ports.source import SourceContext
from elias.services.capture import Capture
from elias.wiring.plugins import load_plugin
from elias.wiring.stores import Stores

STAGES = range(1, 5)


def make_capture(
    config: Config, stores: Stores, source: str, *, label: Label | None = None, stage: int | None = None, **options: Any
) -> Capture:
    """`options` are the source's own. Raises NotFound for a source nobody knows, InputError for a stage."""
    if stage is not None:
        check_stage(stage)
    context = SourceContext(clock=SystemClock(), label=label or config.capture.label, stage=stage)
    return Capture(load_plugin("elias.sources", source)(context, **options), stores.sessions)


def check_stage(stage: int) -> None:
    if stage not in STAGES:
        raise InputError(f"there is no stage {stage}", fix="a Tank Building stage is 1, 2, 3 or 4")
