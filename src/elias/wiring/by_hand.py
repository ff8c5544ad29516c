"""From Config to work that a person starts, and to what it left."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from elias.config.schema import Config
from elias.domain.receipt import ADAPTER
from elias.domain.run import Run
from elias.errors import InputError, NotFound
from elias.ports.backend import Adopts
from elias.services.adopt import Adoption
from elias.services.by_hand import ByHand
from elias.services.run_folder import RunFolder
from elias.wiring.backends import Backends, backend_context
from elias.wiring.plugins import load_plugin
from elias.wiring.train import open_training
from elias_trainer.contract import Result, from_json

if TYPE_CHECKING:
    from elias.adapters.backends.kaggle.by_hand import Kit

KAGGLE = "kaggle"
PLACES = {"s3": "sagemaker"}
"""Addresses that do not begin with their place's own name."""


def lay_out(config: Config, run_id: str, folder: Path, span: timedelta | None) -> Kit:
    """The next segment of a run that stands, in `folder`, for a person to start on Kaggle.

    Raises what `ByHand.lay_out` and the adapter's `lay_out` raise.
    """
    from elias.adapters.backends.kaggle import by_hand

    context = backend_context(config, KAGGLE)
    backend = load_plugin("elias.backends", KAGGLE)(context)
    with open_training(config) as training:
        newest = next(iter(training.stores.runs.list()), None)
        wanted = newest.id if newest and run_id == "latest" else run_id
        bundle = ByHand(training.coordinator.means, training.coordinator.pace).lay_out(wanted, KAGGLE, span)
    owner = by_hand.Owner(account=backend.owner, node=context.node, key=context.node_key)
    return by_hand.lay_out(bundle, folder, owner, backend.settings)


def adopt_work(config: Config, address: str) -> Run:
    """What ran at `place://…`, brought into its run. Raises what `Adoption.adopt` raises."""
    name = _place_of(address)
    with open_training(config) as training:
        backend = training.coordinator.means.backends(name)[name]
        return Adoption(training.coordinator).adopt(name, backend, address)


def download(config: Config, address: str) -> Path:
    """The adapter that work at `place://…` left, checked against its own result; of a run of this node that is over,
    the artifact it became. Raises what `adopt` raises."""
    name, rest = _place_of(address), address.partition("://")[2]
    if not rest:
        raise InputError(f"{address!r} is no address", fix="write it like kaggle://owner/slug")
    backend = Backends(config)(name)[name]
    if not isinstance(backend, Adopts):
        raise InputError(f"{name} has nothing that could be fetched by an address", fix="elias export writes a model")
    target = config.home / "downloads" / rest.strip("/").replace("/", "-")
    shutil.rmtree(target, ignore_errors=True)
    handle = backend.adopt(address)
    backend.fetch(handle, target)
    if not (target / "result.json").exists():
        if (model := _model_of(config, handle)) is not None:
            return model
        raise NotFound(f"{address} has left no finished model", fix="wait for its end, or train on: elias run adopt")
    RunFolder.verify_adapter_in(target, from_json(Result, (target / "result.json").read_bytes()))
    return target / "adapter"


def _place_of(address: str) -> str:
    scheme = address.partition("://")[0]
    return PLACES.get(scheme, scheme)


def _model_of(config: Config, segment: str) -> Path | None:
    """The verified adapter that the run of one of this node's own segments ended with."""
    from elias.wiring.attest import open_attest
    from elias.wiring.stores import open_stores

    with open_stores(config) as stores:
        runs = [run for run in stores.runs.list() if segment.startswith(f"{run.id}-") and run.artifact]
    if not runs or runs[0].artifact is None:
        return None
    with open_attest(config) as models:
        return models.verify(runs[0].artifact).folder / ADAPTER
