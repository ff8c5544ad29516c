"""What the other machine is made of, as it says itself; asked seldom, and remembered for while it is out of reach."""

from __future__ import annotations

import json
import time
from typing import Any

from elias.adapters.backends.found_machine import accelerator_of, is_too_small, offer_of
from elias.adapters.backends.ssh.connection import Connection
from elias.adapters.backends.ssh.settings import SshSettings
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.errors import EliasError
from elias.ports.backend import BackendContext
from elias_trainer.contract import canonical_json, write_whole

ASK_EVERY_S = 60.0


class Machine:
    def __init__(self, context: BackendContext, settings: SshSettings, connection: Connection) -> None:
        self._name = context.name
        self._settings = settings
        self._connection = connection
        self._path = context.home / "machine.json"
        self._asked_at = float("-inf")
        self._error: EliasError | None = None

    @property
    def accelerator(self) -> str | None:
        """As it was found last; None while nobody has looked."""
        found = self._known()
        return None if found is None else accelerator_of(found)

    def offer(self, need: Need) -> Offer:
        """Raises what keeps the machine from being asked, where it never was; else that is the offer's refusal."""
        self._ask()
        found = self._known()
        if found is None:
            raise self._error or RuntimeError("the machine was asked, and neither answered nor failed")
        why = f"{self._error.what}; {self._error.fix}" if self._error else self._lacks(need, found)
        return offer_of(self._name, found, why, most_gpus=self._settings.gpus)

    def _ask(self) -> None:
        if time.monotonic() - self._asked_at < ASK_EVERY_S:
            return
        try:
            write_whole(self._path, canonical_json(self._connection.ask("probe")))
            self._error = None
        except EliasError as error:
            self._error = error
        self._asked_at = time.monotonic()

    def _known(self) -> dict[str, Any] | None:
        return dict(json.loads(self._path.read_bytes())) if self._path.exists() else None

    def _lacks(self, need: Need, found: dict[str, Any]) -> str | None:
        host, python = self._settings.host, self._settings.python
        if found["is_old"]:
            return f"{python} on {host} is Python {found['python']}, and 3.11 is needed"
        if "torch" in found["lacks"]:
            return f"{python} on {host} has no torch: pip install 'elias-node[train]' there, or set python"
        if "pyrage" in found["lacks"] and need.label is Label.PRIVATE and not self._settings.trusted:
            return f"private data travels sealed, and {python} on {host} has no pyrage: pip install pyrage there"
        return is_too_small(need, found, str(host))
