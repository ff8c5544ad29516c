"""`[backends.worker]`, and any other table with `kind = "worker"`: one door each, for any number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from elias.adapters.backends.tables import read_like_defaults
from elias.errors import ConfigError

SPANS = ("alone", "patience", "start_patience", "report_every", "seen_within", "token_valid")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    host: str = "127.0.0.1"
    """Where the door for workers listens; a tunnel or a proxy that speaks TLS stands before it."""
    port: int = 4142
    url: str | None = None
    """How workers reach it from outside, `https://…`; said with each token, and written into notebooks."""
    alone: timedelta = timedelta(minutes=10)
    """How long a trainer goes on while this node is out of reach; then it saves a checkpoint and pauses."""
    patience: timedelta = timedelta(minutes=15)
    """How long a worker may be silent, while the door is open, before its segment is given up; no less than `alone`."""
    start_patience: timedelta = timedelta(minutes=15)
    """How long a segment waits for a worker to take it."""
    report_every: timedelta = timedelta(seconds=2)
    """A worker tells this often how its segment is, and hears what is wanted."""
    seen_within: timedelta = timedelta(minutes=2)
    """A worker that called no longer ago is on offer."""
    token_valid: timedelta = timedelta(days=1)
    most_gib: int = 64
    """Of a segment's outputs on their way home; no worker fills this disk."""

    @classmethod
    def read(cls, raw: Mapping[str, Any], name: str = "worker") -> WorkerSettings:
        """Raises ConfigError naming the setting."""
        table = f"[backends.{name}]"
        made = cls(**read_like_defaults(table, raw, cls, SPANS))
        if not 0 <= made.port < 65536 or made.most_gib < 1:
            what = f"port is {made.port}" if made.most_gib >= 1 else f"most_gib is {made.most_gib}"
            raise ConfigError(f"{table} {what}", fix="a port from 1 to 65535, most_gib from 1")
        if made.patience < made.alone:
            raise ConfigError(
                f"{table} patience is less than alone: a segment would begin elsewhere while its worker trains on",
                fix="make patience at least as long as alone",
            )
        return made

    def door(self) -> str:
        """As workers are told; on this machine where no other way is known."""
        return self.url.rstrip("/") if self.url else f"http://{self.host}:{self.port}"
