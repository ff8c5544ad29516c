"""From Config to the attest service, and to a node's first files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elias.config.schema import Config
from elias.errors import ConfigError
from elias.ports.attestation import Signer
from elias.services.attest import Attest
from elias.wiring.stores import DATABASE_FILE, Stores, missing_node_package, open_stores

IDENTITY_FOLDER = "identity"
ARTIFACTS_FOLDER = "artifacts"


def node_signer(config: Config) -> Signer:
    """Raises MissingPackage; what is wrong with the identity is said on first use."""
    try:
        from elias.adapters.signing.node_signer import NodeSigner
    except ModuleNotFoundError as error:
        raise missing_node_package(error) from error
    return NodeSigner(config.home / IDENTITY_FOLDER)


def attest(config: Config, stores: Stores) -> Attest:
    from elias.adapters.clock import SystemClock

    return Attest(
        artifacts=config.home / ARTIFACTS_FOLDER,
        signer=node_signer(config),
        models=stores.models,
        clock=SystemClock(),
        folders=stores.folders,
    )


def check_node(config: Config) -> None:
    """Before anything is begun that ends in a model, or sends private data away to come back sealed for this node.

    Raises UserError where `elias init` has made no identity yet, ConfigError for an unusable one, MissingPackage.
    """
    node_signer(config).key_id()


@contextmanager
def open_attest(config: Config) -> Iterator[Attest]:
    """With the stores opened for it, and closed afterwards."""
    with open_stores(config) as stores:
        yield attest(config, stores)


def make_node(config: Config) -> tuple[Path, ...]:
    """The home's first files: identity, config.toml, stores; safe to repeat. What was made now, in order.

    Raises ConfigError when the home cannot be written, StoreError when the database cannot.
    """
    from elias.config.default_file import DEFAULT_FILE, file_for
    from elias.config.file import CONFIG_FILE
    from elias_trainer.contract import write_whole

    try:
        from elias.adapters.signing.identity import create_identity
    except ModuleNotFoundError as error:
        raise missing_node_package(error) from error
    made = []
    try:
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if create_identity(config.home / IDENTITY_FOLDER):
            made.append(config.home / IDENTITY_FOLDER)
        if not (config.home / CONFIG_FILE).exists():
            chosen = config.profile if config.origins.get("profile") == "--profile" else None
            text = file_for(chosen) if chosen else DEFAULT_FILE
            write_whole(config.home / CONFIG_FILE, text.encode())
            (config.home / CONFIG_FILE).chmod(0o600)  # one day it may hold a password
            made.append(config.home / CONFIG_FILE)
    except OSError as error:
        raise ConfigError(
            f"{config.home} cannot be this node's home: {error.strerror or error}",
            fix="set ELIAS_HOME to a folder that you can write to",
        ) from error
    had_database = (config.home / DATABASE_FILE).exists()
    open_stores(config).close()
    if config.store.url is None and not had_database:
        made.append(config.home / DATABASE_FILE)
    return tuple(made)
