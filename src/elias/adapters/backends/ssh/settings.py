"""`[backends.ssh]`, and any other table with `kind = "ssh"`: one machine each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from elias.adapters.backends.tables import read_span, read_table
from elias.errors import ConfigError

SPANS = ("alone", "poll_every", "patience", "start_patience", "connect")
_PLAIN = re.compile(r"[A-Za-z0-9_.:%@][A-Za-z0-9_.:%@-]*")
"""Never the beginning of an option."""
_PATH = re.compile(r"(~/)?[A-Za-z0-9_./+@-]*[A-Za-z0-9_+@-]")
"""Nothing that a login shell or sftp would read as more than a path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SshSettings:
    host: str | None = None
    """A name, an address, or an alias of ~/.ssh/config, which is read as ssh itself reads it."""
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    """The interpreter there, one that has what the trainer needs."""
    folder: str = "elias-segments"
    """Where segments are kept there; relative to the home folder. On a local disk: a lock in it says who trains."""
    gpus: int | None = None
    """Of the GPUs there; absent, all."""
    ssh_config: str | None = None
    """In place of ~/.ssh/config."""
    trusted: bool = False
    """Whether private data may lie readable there; secret data never goes."""
    alone: timedelta = timedelta(hours=1)
    """How long a trainer goes on while this node is out of reach; then it saves a checkpoint and pauses."""
    poll_every: timedelta = timedelta(seconds=5)
    """The machine is asked no more often than this."""
    patience: timedelta = timedelta(days=1)
    """How long it may be out of reach before a segment that was begun there is given up."""
    start_patience: timedelta = timedelta(minutes=15)
    """The same for one that was not begun."""
    connect: timedelta = timedelta(seconds=10)
    """For the connection to come about."""

    @classmethod
    def read(cls, raw: Mapping[str, Any], name: str = "ssh") -> SshSettings:
        """Raises ConfigError naming the setting."""
        table = f"[backends.{name}]"
        made = cls(**read_table(table, raw, cls, lambda key, value, _: _read_one(table, key, value)))
        if made.host is None:
            raise ConfigError(
                f"{table} names no machine", fix=f'write {table} and below it: host = "…", as you would type it to ssh'
            )
        for key, form in (("host", _PLAIN), ("user", _PLAIN), ("python", _PATH), ("folder", _PATH)):
            text = getattr(made, key)
            if text is not None and (not form.fullmatch(text) or text.startswith("-")):
                raise ConfigError(f"{table} {key} is {text!r}", fix="letters, digits and . _ - / only, no spaces")
        return made

    @property
    def there(self) -> str:
        """`folder`, as both sftp and a process that begins in the home folder take it."""
        return self.folder.removeprefix("~/").rstrip("/")


def _read_one(table: str, name: str, value: Any) -> Any:
    if name in SPANS:
        return read_span(table, name, value)
    if name in ("port", "gpus"):
        is_right, kind = isinstance(value, int) and not isinstance(value, bool) and value > 0, "a whole number above 0"
    elif name == "trusted":
        is_right, kind = isinstance(value, bool), "true or false"
    else:
        is_right, kind = isinstance(value, str), "text"
    if not is_right:
        raise ConfigError(f"{table} {name} is {value!r}, not {kind}", fix=f"docs/configuration.md shows {name}")
    return value
