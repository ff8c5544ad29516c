"""The backend's power to say what goes on in the account, and to end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.ledger import Ledger
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.adapters.backends.sagemaker.sweep import Sweep
from elias.domain.holding import Holding
from elias.ports.backend import BackendContext

UNNAMED = "node"
"""What a node is called whose user gave it no name: another machine may be called so too."""


class Holdings:
    """`HasHoldings`, as a part of the backend."""

    settings: SageMakerSettings
    _context: BackendContext
    _clients: Clients
    _ledger: Ledger

    def holdings(self) -> Sequence[Holding]:
        known = {entry.job for entry in self._ledger.entries()}
        is_named = self._context.node != UNNAMED
        found = Sweep(self._clients, self._context.node).holdings()
        return [replace(holding, is_surely_ours=is_named or holding.name in known) for holding in found]

    def stop(self, name: str) -> None:
        Sweep(self._clients, self._context.node).stop(name)

    def orphan_grace(self) -> timedelta | None:
        return self.settings.orphan_grace if self.settings.stop_orphans else None
