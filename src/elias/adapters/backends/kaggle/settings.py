"""`[backends.kaggle]`: what a user may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from elias.adapters.backends.tables import read_like_defaults
from elias.errors import ConfigError

SPANS = (
    "weekly_cap",
    "session_limit",
    "margin",
    "processing_limit",
    "stale_wait",
    "settle",
    "missing_limit",
    "patience",
    "http_read",
    "poll_every",
    "retry_wait",
)
KEY_WAYS = ("dataset", "secret")
CANCEL_WAYS = ("deadline", "delete")


@dataclass(frozen=True, kw_only=True, slots=True)
class KaggleSettings:
    weekly_cap: timedelta = timedelta(hours=20)
    """GPU hours of a week that ELIAS may use, whatever the account has."""
    session_limit: timedelta = timedelta(hours=9)
    """The longest session; Kaggle's messages speak of 12 and of 9 hours."""
    margin: timedelta = timedelta(minutes=10)
    """Of a session, kept for starting, for the last checkpoint and for the upload of outputs."""
    accelerator: str = "NvidiaTeslaT4"
    """Kaggle's machine shape; empty trains on the CPU."""
    sessions_at_once: int = 2
    internet: bool = False
    template: str | None = None
    """A notebook of your own, made from `elias kaggle template`."""
    wheels: str | None = None
    """A folder of wheels that the notebook installs offline before it trains."""
    base_source: str | None = None
    """A Kaggle dataset `owner/slug` that holds the base's files, mounted beside the corpus."""
    key_by: str = "dataset"
    """How the key of private data reaches the kernel: a second private `dataset`, deleted once read, or a `secret`."""
    secret_recipient: str | None = None
    """The age recipient of the Kaggle Secret ELIAS_KEY, for key_by = "secret"."""
    keep_versions: int = 1
    """Dataset versions kept; Kaggle drops all or none of the older ones, so anything above 1 keeps all."""
    stale_tries: int = 5
    """How often a segment that found the wrong dataset version is pushed again."""
    stale_wait: timedelta = timedelta(minutes=2)
    """Before it is."""
    processing_limit: timedelta = timedelta(minutes=30)
    """How long a new dataset version may take to become ready; then it is sent again, three times in all."""
    settle: timedelta = timedelta(minutes=1)
    """How long a push whose answer was lost may take to show; only then is it sent again."""
    missing_limit: timedelta = timedelta(minutes=10)
    """A kernel that Kaggle does not show for so long is gone."""
    patience: timedelta = timedelta(days=1)
    """How long Kaggle may be out of reach before a segment is given up."""
    cancel_by: str = "deadline"
    """A cancelled session runs to its `deadline`, keeping its output; `delete` ends it at once and loses it."""
    base_url: str | None = None
    """Another endpoint, such as the emulator's."""
    http_tries: int = 5
    http_read: timedelta = timedelta(seconds=60)
    """How long Kaggle may be silent in a call."""
    retry_wait: timedelta = timedelta(seconds=1)
    """Before the second try; twice as long before each further one."""
    poll_every: timedelta = timedelta(seconds=20)
    """A session's state is asked for so often, up to nine times as seldom while its log is open and nothing changes;
    before it begins, from an eighth of this on. What its log shows is looked at at once."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> KaggleSettings:
        """Raises ConfigError naming the setting."""
        made = cls(**read_like_defaults("[backends.kaggle]", raw, cls, SPANS))
        if made.key_by not in KEY_WAYS:
            raise ConfigError(f"[backends.kaggle] key_by is {made.key_by!r}", fix='set key_by = "dataset" or "secret"')
        if made.cancel_by not in CANCEL_WAYS:
            raise ConfigError(
                f"[backends.kaggle] cancel_by is {made.cancel_by!r}", fix='set cancel_by = "deadline" or "delete"'
            )
        if made.session_limit <= made.margin:
            raise ConfigError(
                f"[backends.kaggle] session_limit {made.session_limit} leaves nothing beside margin {made.margin}",
                fix='write it like: session_limit = "9h"',
            )
        if made.key_by == "secret" and made.secret_recipient is None:
            raise ConfigError(
                '[backends.kaggle] key_by = "secret" needs secret_recipient',
                fix="run `elias kaggle key`, store what it prints as the Kaggle Secret ELIAS_KEY, set secret_recipient",
            )
        return made
