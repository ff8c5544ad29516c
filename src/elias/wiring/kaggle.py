"""From Config to what `elias kaggle` shows."""

from __future__ import annotations

from elias.config.schema import Config
from elias.errors import InputError
from elias.ports.backend import HasQuota, Quota
from elias.wiring.plugins import load_plugin
from elias.wiring.train import backend_context

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


def quota(config: Config) -> Quota:
    """Raises MissingPackage, ConfigError, BackendError."""
    backend = load_plugin("elias.backends", NAME)(backend_context(config, NAME))
    if not isinstance(backend, HasQuota):
        raise InputError(f"{NAME} has no quota here", fix="pip install 'elias-node[kaggle]'")
    return backend.quota()
