"""A program that answers: an OpenAI-compatible server on a loopback port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from elias_trainer.contract import BaseModel


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelToServe:
    base: BaseModel
    adapter: Path | None
    """A verified folder with adapter_model.safetensors and adapter_config.json."""
    name: str
    """What `/v1/models` calls it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    url: str
    """Such as `http://127.0.0.1:43121`, without `/v1`."""
    api_key: str
    """Random, known to this node alone."""
    process: int
    """Its process id."""


class InferenceEngine(Protocol):
    def can_serve(self, model: ModelToServe) -> str | None:
        """None, or why not."""
        ...

    def start(self, model: ModelToServe, logs: Path) -> Endpoint:
        """Return once `/health` answers; its output goes to `logs`. Raises EngineError, nothing left running."""
        ...

    def is_alive(self, endpoint: Endpoint) -> bool: ...

    def stop(self, endpoint: Endpoint) -> None:
        """Within 5 s, by force if need be. Of no effect on one that has ended."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineContext:
    home: Path
    """A folder of its own, for converted models."""
    threads: int


EngineFactory = Callable[[EngineContext], InferenceEngine]
"""What an `elias.engines` entry point names."""
