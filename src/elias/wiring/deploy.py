"""From Config to the service that keeps a model in service."""

from __future__ import annotations

from pathlib import Path

from elias.config.schema import Config
from elias.errors import MissingPackage
from elias.ports.inference import EngineContext, InferenceEngine
from elias.services.deploy import DeployService
from elias.services.launch import Means, Policy
from elias.services.route import Route
from elias.wiring.plugins import load_plugin, plugin_names
from elias.wiring.stores import Stores
from elias_trainer.contract import STARTER, Digest

PREFERRED = ("llamacpp", "reference")
"""The order in which engines are tried; others follow by name."""
CACHE_FOLDER = "cache"
LOGS_FOLDER = "logs"

_SPARE_BYTES = 1 << 30
_SPARE_SHARE = 0.15
"""Of all memory: what must be left over for an engine in standby to stay."""


def open_engines(config: Config) -> dict[str, InferenceEngine]:
    """Every engine whose packages are installed, the preferred one first; each is a child process once started."""
    context = EngineContext(home=config.home / CACHE_FOLDER, threads=serving_threads(config))
    found = plugin_names("elias.engines")
    order = [name for name in PREFERRED if name in found] + [name for name in found if name not in PREFERRED]
    engines: dict[str, InferenceEngine] = {}
    for name in order:
        try:
            engines[name] = load_plugin("elias.engines", name)(context)
        except MissingPackage:
            if name == config.serving.engine:
                raise
    return engines


def serving_threads(config: Config) -> int:
    """Half of those at hand unless set: a trainer's threads and an engine's starve one another."""
    from elias.adapters.hardware import threads_available

    return config.serving.threads or max(1, threads_available() // 2)


def deploy_policy(config: Config) -> Policy:
    from elias.wiring.train import default_base

    return Policy(
        default_bases=tuple(dict.fromkeys([default_base(config)[0], STARTER])),
        canary=config.serving.canary,
        engine=config.serving.engine,
        drain=config.serving.drain,
        silent_for=config.serving.silent_for,
    )


def deploy_service(config: Config, stores: Stores, route: Route) -> DeployService:
    from elias.adapters.engines.ask import answers, ask
    from elias.wiring.attest import attest

    proof = attest(config, stores)

    def verify(digest: Digest) -> Path:
        return proof.verify(digest).adapter

    means = Means(
        models=stores.models,
        engines=open_engines(config),
        verify=verify,
        ask=ask,
        has_room=_has_room,
        answers=answers,
        logs=config.home / LOGS_FOLDER,
    )
    return DeployService(means, deploy_policy(config), route)


def _has_room() -> bool:
    import psutil

    memory = psutil.virtual_memory()
    return bool(memory.available > max(_SPARE_BYTES, memory.total * _SPARE_SHARE))
