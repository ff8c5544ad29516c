"""From Config to what `elias kaggle` shows."""

from __future__ import annotations

from dataclasses import dataclass

from elias.config.schema import Config
from elias.domain.footprint import Footprint, footprint
from elias.errors import InputError
from elias.ports.backend import HasQuota, Quota
from elias.services.base_shape import model_shape
from elias.wiring.backends import backend_context
from elias.wiring.plugins import load_plugin
from elias_trainer.contract import Precision, Recipe

NAME = "kaggle"
KEY_FILE = "identity/kaggle.key"


def template(*, as_script: bool) -> str:
    from elias.adapters.backends.kaggle import notebook

    text = notebook.template_text()
    return notebook.as_script(text) if as_script else text


def check_template(path: str) -> None:
    """Raises ConfigError when a notebook made from the template cannot be pushed."""
    from elias.adapters.backends.kaggle import notebook

    notebook.read_template(path)


def secret_key(config: Config) -> tuple[str, str]:
    """The age identity for the Kaggle Secret, made on first use, and its recipient. Raises MissingPackage."""
    from elias.adapters.backends.parcels import new_identity, recipient_of

    path = config.home / KEY_FILE
    identity = path.read_text(encoding="utf-8").strip() if path.exists() else new_identity(path)
    return identity, recipient_of(identity)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnT4s:
    """By the memory model, in float16; never measured on a T4."""

    needs: Footprint
    needs_bytes: int
    card_bytes: int
    """Usable on one of the two."""
    cards: int | None
    """How many the model at work takes; None is more than there are."""
    shape: str
    """Where the base's numbers are from."""


def on_t4s(base: str, recipe: Recipe) -> OnT4s:
    """What training asks of Kaggle's two T4s."""
    from elias.adapters.backends.kaggle.sender import CARDS, T4_BYTES

    found = model_shape(base)
    needs = footprint(found.shape, recipe, Precision.FP16)
    cards = next((count for count in range(1, CARDS + 1) if needs.total <= count * T4_BYTES), None)
    return OnT4s(needs=needs, needs_bytes=needs.total, card_bytes=T4_BYTES, cards=cards, shape=found.basis)


def quota(config: Config) -> Quota:
    """Raises MissingPackage, ConfigError, BackendError."""
    backend = load_plugin("elias.backends", NAME)(backend_context(config, NAME))
    if not isinstance(backend, HasQuota):
        raise InputError(f"{NAME} has no quota here", fix="pip install 'elias-node[kaggle]'")
    return backend.quota()
