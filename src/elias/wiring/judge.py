"""From Config to the judge and its evaluators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from elias.config.schema import Config
from elias.domain.artifact import Artifact
from elias.errors import NotFound
from elias.ports.evaluator import Evaluator, EvaluatorBounds, EvaluatorContext
from elias.ports.inference import EngineContext
from elias.services.judge import Judge, Opened
from elias.wiring.deploy import CACHE_FOLDER, PREFERRED, serving_threads
from elias.wiring.plugins import load_plugin, plugin_names
from elias.wiring.stores import Stores, open_stores
from elias_trainer.contract import BaseModel, Recipe


@contextmanager
def open_judge(config: Config, tell: Callable[[str], None] = lambda line: None) -> Iterator[Judge]:
    """With the stores opened for it. Raises NotFound for an evaluator nobody knows, MissingPackage."""
    with open_stores(config) as stores:
        yield make_judge(config, stores, tell)


def make_judge(config: Config, stores: Stores, tell: Callable[[str], None] = lambda line: None) -> Judge:
    from elias.adapters.clock import SystemClock
    from elias.adapters.evaluators.scratch import scratch_folder
    from elias.wiring.corpus import open_blobs

    return Judge(
        models=stores.models,
        corpora=stores.corpora,
        blobs=open_blobs(config, stores),
        open_artifact=_opener(config, stores),
        evaluators=open_evaluators(config, tell),
        rule=config.gate,
        clock=SystemClock(),
        tell=tell,
        scratch=lambda: scratch_folder(config.home / CACHE_FOLDER, "judge-"),
    )


def open_evaluators(config: Config, tell: Callable[[str], None] = lambda line: None) -> dict[str, Evaluator]:
    """Those that the configuration names, in its order."""
    from elias.adapters.hardware import threads_available

    context = EvaluatorContext(
        home=config.home,
        threads=config.training.threads or threads_available(),
        sequence_length=Recipe().sequence_length,
        engines=_engines(config),
        tell=tell,
        bounds=EvaluatorBounds(
            examples=config.judge.examples,
            functions=config.judge.functions,
            answer_tokens=config.judge.answer_tokens,
        ),
    )
    return {name: load_plugin("elias.evaluators", name)(context) for name in config.evaluators}


def _engines(config: Config) -> dict[str, Callable[[], object]]:
    """The configured one first, then the preferred ones; each is made when it is asked for."""
    context = EngineContext(home=config.home / CACHE_FOLDER, threads=serving_threads(config))
    found = plugin_names("elias.engines")
    order = [name for name in (config.serving.engine, *PREFERRED, *found) if name in found]
    return {name: _maker(name, context) for name in dict.fromkeys(order) if name is not None}


def _maker(name: str, context: EngineContext) -> Callable[[], object]:
    def make() -> object:
        context.home.mkdir(parents=True, exist_ok=True)
        return load_plugin("elias.engines", name)(context)

    return make


def _opener(config: Config, stores: Stores) -> Callable[[Artifact], Opened]:
    from elias.wiring.attest import attest

    proof = attest(config, stores)

    def open_artifact(artifact: Artifact) -> Opened:
        found = proof.verify(artifact.digest)
        receipt = found.receipt
        base = BaseModel(
            reference=receipt.base_reference,
            digest=receipt.base_digest,
            revision=receipt.base_revision,
            allow_code=config.training.allow_code,
        )
        with suppress(NotFound):  # a model that came from another node has no run here
            base = replace(base, allow_code=stores.runs.get(artifact.run).base.allow_code)
        return Opened(base=base, adapter=found.adapter)

    return open_artifact
