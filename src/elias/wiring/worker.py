"""From Config to the door for workers: tokens, who joined, and how a machine gets in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from elias.adapters.backends.found_machine import accelerator_of
from elias.adapters.backends.trainer_archive import write_trainer_archive
from elias.adapters.backends.worker.backend import WorkerBackend
from elias.adapters.backends.worker.notebook import notebook
from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.errors import ConfigError
from elias.wiring.backends import Backends
from elias_trainer.contract import Digest, digest_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    token: str
    until: datetime
    url: str
    is_reachable: bool
    """Whether another machine could reach that address."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerRow:
    worker: str
    machine: str
    accelerator: str
    accelerator_count: int
    python: str
    lacks: tuple[str, ...]
    joined_at: datetime
    seen_at: datetime
    is_here: bool
    """Whether it called lately."""
    is_dismissed: bool
    segment: str | None


def invite(config: Config, place: str, url: str | None, valid: timedelta | None) -> Invitation:
    """A new token; the door opens for it where a node is up. Raises ConfigError, NotFound."""
    backend = _place(config, place)
    token, until = backend.register.new_token(valid or backend.settings.token_valid)
    door = (url or backend.settings.door()).rstrip("/")
    is_reachable = bool(url or backend.settings.url) or backend.settings.host not in ("127.0.0.1", "localhost", "::1")
    return Invitation(token=token, until=until, url=door, is_reachable=is_reachable)


def workers(config: Config, place: str) -> list[WorkerRow]:
    backend, now = _place(config, place), SystemClock().now()
    return [
        WorkerRow(
            worker=one.id,
            machine=one.machine["name"],
            accelerator=accelerator_of(one.machine),
            accelerator_count=len(one.machine["gpus"]) or 1,
            python=one.machine["python"],
            lacks=tuple(one.machine["lacks"]),
            joined_at=one.joined_at,
            seen_at=one.seen_at,
            is_here=now - one.seen_at < backend.settings.seen_within,
            is_dismissed=one.is_dismissed,
            segment=backend.segment_of(one.id),
        )
        for one in backend.register.known()
    ]


def forget(config: Config, place: str, worker: str) -> bool:
    """Whether it is gone already; else it hears it with its next call, and brings home what it has first."""
    backend = _place(config, place)
    may_hear_it = any((row.is_here or row.segment) for row in workers(config, place) if row.worker == worker)
    backend.register.dismiss(worker)
    if may_hear_it:  # and may have heard it by now
        return False
    backend.register.drop(worker)
    return True


def notebook_for(config: Config, place: str, invitation: Invitation) -> Mapping[str, object]:
    """For Colab or any Jupyter: one cell, which fetches this node's worker and joins."""
    return notebook(invitation.url, invitation.token, _program_digest(), config.node.name)


def _program_digest() -> Digest:
    """Of the program that the door gives away; the same sources give the same bytes."""
    scratch = Path(tempfile.mkdtemp(prefix="elias-worker-"))
    try:
        write_trainer_archive(scratch / "worker.pyz")
        return Digest(digest_file(scratch / "worker.pyz"))
    finally:
        shutil.rmtree(scratch)


def _place(config: Config, name: str) -> WorkerBackend:
    backend = Backends(config).make(name)
    if not isinstance(backend, WorkerBackend):
        raise ConfigError(f"{name} is no place for workers", fix=f'kind = "worker" under [backends.{name}]')
    return backend
