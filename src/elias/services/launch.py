"""Room 7. From a model to an engine that has answered: the steps every way into service shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from elias.errors import EngineError, NotFound
from elias.ports.inference import Endpoint, InferenceEngine, ModelToServe
from elias.ports.stores import ModelStore
from elias_trainer.contract import BaseModel, Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What the deploy service works with."""

    models: ModelStore
    engines: Mapping[str, InferenceEngine]
    """By name, the preferred one first."""
    verify: Callable[[Digest], Path]
    """The adapter's folder, checked just now. Raises a VerificationError."""
    ask: Callable[[Endpoint, str], str]
    """The model's answer to one message. Raises EngineError."""
    has_room: Callable[[], bool]
    """Whether memory allows an engine more than the one in service."""
    logs: Path
    answers: Callable[[Endpoint, float], bool] = lambda endpoint, within_s: True
    """Whether its `/health` says anything within so many seconds; a process that lives may hang."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    default_bases: tuple[str, ...]
    """The first of them that can be served is, while nothing was deployed."""
    canary: str = "Say hello."
    engine: str | None = None
    """None takes the first that can serve the model."""
    drain: timedelta = timedelta(seconds=30)
    restart_after: tuple[timedelta, ...] = tuple(timedelta(seconds=s) for s in (0, 0.5, 1, 2, 4, 8, 16, 30))
    """The wait before each start of an engine that ended; the last one repeats."""
    silent_for: timedelta = timedelta(seconds=30)
    """An engine whose `/health` answers nothing for so long hangs, and is replaced."""
    deaths_allowed: int = 2
    """Within `deaths_within`; one more, and the model before it comes back."""
    deaths_within: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    base: str
    artifact: Digest | None
    model: ModelToServe
    engine_name: str
    engine: InferenceEngine
    endpoint: Endpoint

    def stop(self) -> None:
        self.engine.stop(self.endpoint)


class Launcher:
    def __init__(self, means: Means, policy: Policy) -> None:
        self._means, self._policy = means, policy

    def launch(self, base: str, artifact: Digest | None, engine: str | None) -> Started:
        """Verified, started, healthy, and its answer to the canary not empty; else nothing is left running.

        Raises NotFound, a VerificationError, or EngineError.
        """
        model = self._model(base, artifact)
        name = self._choose(model, engine or self._policy.engine)
        program = self._means.engines[name]
        endpoint = program.start(model, self._means.logs / f"engine-{name}.log")
        started = Started(
            base=base, artifact=artifact, model=model, engine_name=name, engine=program, endpoint=endpoint
        )
        try:
            if not self._means.ask(endpoint, self._policy.canary).strip():
                fix = "ask it something else: set serving.canary; or train on"
                raise EngineError(f"{model.name} answered the canary with nothing", fix=fix)
        except BaseException:
            started.stop()
            raise
        return started

    def _model(self, base: str, artifact: Digest | None) -> ModelToServe:
        if artifact is None:
            return ModelToServe(base=BaseModel(reference=base), adapter=None, name=_short(base))
        adapter = self._means.verify(artifact)
        known = self._means.models.artifact(artifact)
        wanted = BaseModel(reference=known.base_reference, digest=known.base_digest)
        return ModelToServe(base=wanted, adapter=adapter, name=f"{_short(base)}+{artifact.short}")

    def _choose(self, model: ModelToServe, wanted: str | None) -> str:
        names = ", ".join(self._means.engines)
        if wanted is not None and wanted not in self._means.engines:
            raise NotFound(f"no engine is called {wanted!r}", fix=f"use one of: {names}")
        reasons = []
        for name in [wanted] if wanted else self._means.engines:
            reason = self._means.engines[name].can_serve(model)
            if reason is None:
                return name
            reasons.append(f"{name}: {reason}")
        fix = "name a base that is here, or another engine with --engine"
        raise EngineError(f"no engine can serve {model.name} ({'; '.join(reasons)})", fix=fix)


def _short(base: str) -> str:
    """A path's last part, a name as it is."""
    return Path(base).name if base.startswith(("/", ".", "~")) else base
