"""From Config to the places: every backend that is installed or configured, made on first use."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from elias.config.schema import Config
from elias.domain.run import HYBRID
from elias.errors import ConfigError, EliasError
from elias.ports.backend import Backend, BackendContext, HasCredentials
from elias.units import Clock
from elias.wiring.plugins import load_plugin, plugin_names
from elias.wiring.stores import missing_node_package

log = logging.getLogger("elias.backends")

BASES_FOLDER = "cache/bases"
KIND = "kind"
"""In a backend's table: which installed backend it is, where that is not the table's own name."""
TRY_AGAIN_S = 60.0
"""A place that could not be made is not tried again sooner: finding no credentials takes a second."""


class Backends:
    """Strategy -> the places it allows, each made on first use and kept."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock
        self.made: dict[str, Backend] = {}
        self.failed: dict[str, tuple[float, EliasError]] = {}
        """Name -> when it last could not be made, on the monotonic clock, and why."""

    def __call__(self, strategy: str) -> Mapping[str, Backend]:
        """Raises NotFound for a strategy nobody knows, MissingPackage, ConfigError; of `hybrid` one of `left_out`."""
        return self._ready() if strategy == HYBRID else {strategy: self.make(strategy)}

    def make(self, name: str) -> Backend:
        """Ready or not. Raises NotFound, MissingPackage, ConfigError."""
        if name not in self.made:
            kind = str(self.config.backends.get(name, {}).get(KIND, name))
            self.made[name] = load_plugin("elias.backends", kind)(backend_context(self.config, name, self.clock))
        return self.made[name]

    def _ready(self) -> Mapping[str, Backend]:
        """This machine, what is configured, and what else finds its credentials; `elias offers` shows the others."""
        wanted, unwanted = dict.fromkeys(["local", *self.config.backends]), left_out(self.config)
        found = Places(self.make)
        for name in dict.fromkeys([*wanted, *place_names(self.config)]):
            if name in unwanted or (name in self.failed and time.monotonic() - self.failed[name][0] < TRY_AGAIN_S):
                continue
            try:
                backend = self.make(name)
            except EliasError as error:
                self.failed[name] = time.monotonic(), error
                log.info("the place %s is left out: %s (fix: %s)", name, error.what, error.fix)
                continue
            self.failed.pop(name, None)
            if name in wanted or not isinstance(backend, HasCredentials) or backend.has_credentials():
                found[name] = backend
        return found

    def unmade(self) -> Mapping[str, EliasError]:
        """Of the configured places that `hybrid` would go to: what kept those from it that could not be made."""
        return {name: self.failed[name][1] for name in self.config.backends if name in self.failed}


def place_names(config: Config) -> tuple[str, ...]:
    """Every installed backend and every configured one; a kind that only serves under other names is left out."""
    kinds = {str(table[KIND]) for table in config.backends.values() if KIND in table}
    return tuple(sorted((set(plugin_names("elias.backends")) - kinds) | set(config.backends)))


def left_out(config: Config) -> tuple[str, ...]:
    """The places that `hybrid` does not go to. Raises ConfigError for one that there is not."""
    names, known = config.training.hybrid_without, place_names(config)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"training.hybrid_without names {unknown[0]!r}, and there is no such place",
            fix=f"the places are: {', '.join(known)}",
        )
    return names


class Places(dict[str, Backend]):
    """One that is not ready any more is made all the same when it is asked for: a segment may still be there."""

    def __init__(self, make: Callable[[str], Backend]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Backend:
        return self._make(name)


def backend_context(config: Config, name: str, clock: Clock | None = None) -> BackendContext:
    from elias.adapters.clock import SystemClock

    return BackendContext(
        name=name,
        node=config.node.name,
        home=config.home / "backends" / name,
        settings=_settings(config, name),
        clock=clock or SystemClock(),
        environment=dict(os.environ),
        node_key=_node_key(config),
    )


def _node_key(config: Config) -> str | None:
    """The node's age identity; None before `elias init`. Raises ConfigError, MissingPackage."""
    from elias.wiring.attest import IDENTITY_FOLDER

    folder = config.home / IDENTITY_FOLDER
    if not (folder / "seed").exists():
        return None
    try:
        from elias.adapters.signing.identity import load_identity
    except ModuleNotFoundError as error:
        raise missing_node_package(error) from error
    return load_identity(folder).age_identity


def _settings(config: Config, name: str) -> Mapping[str, Any]:
    """The user's own table; this machine's also knows the node's threads and where bases are kept."""
    own = {key: value for key, value in config.backends.get(name, {}).items() if key != KIND}
    if name != "local":
        return own
    return {"threads": config.training.threads, "cache": str(config.home / BASES_FOLDER), **own}
