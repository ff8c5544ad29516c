"""Who may work here: tokens that are good once, and the workers that joined with one. Only hashes are kept.

tokens/<sha256 of the token>.json        until when it is good
tokens/<sha256 of the token>.used        by whom it was used; appears once
workers/<worker>.json                    the hash of its secret, its machine as it said last
workers/<worker>.seen .dismissed .gone   when it called last; not wanted any more; forgotten, and never let in again
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.output import read_json
from elias.errors import NotFound
from elias.units import Clock, instant, rfc3339
from elias_trainer.contract import canonical_json, write_whole

_WORKER = re.compile(r"w-[0-9a-f]{10}")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A worker that has joined."""

    id: str
    machine: Mapping[str, Any]
    joined_at: datetime
    seen_at: datetime
    is_dismissed: bool


class Register:
    def __init__(self, home: Path, clock: Clock) -> None:
        self._tokens, self._workers = home / "tokens", home / "workers"
        self._clock = clock

    def new_token(self, valid: timedelta) -> tuple[str, datetime]:
        """The token, which is shown once and kept nowhere, and until when it is good."""
        token, until = secrets.token_hex(24), self._clock.now() + valid
        write_whole(self._tokens / f"{_hash(token)}.json", canonical_json({"until": rfc3339(until)}))
        self._drop_old_tokens()
        return token, until

    def has_open_token(self) -> bool:
        return any(
            not path.with_suffix(".used").exists() and self._until(path) > self._clock.now()
            for path in self._tokens.glob("*.json")
        )

    def join(self, token: str, worker: str, proof: str, machine: Mapping[str, Any]) -> str | None:
        """Why not; None lets it in. The same worker may say it again, for its answer may be lost; nobody else."""
        path = self._tokens / f"{_hash(token)}.json"
        if not _WORKER.fullmatch(worker) or not _HASH.fullmatch(proof):
            return "that is not how a worker names itself"
        if (self._workers / f"{worker}.gone").exists():
            return "this worker was forgotten; it may join as a new one, with a new token and an empty folder"
        if not path.exists():
            return "nobody here knows this token"
        if not self._claim(path.with_suffix(".used"), f"{worker} {proof}"):
            return "this token was used before; each is good for one worker"
        if not (self._workers / f"{worker}.json").exists():
            if self._until(path) < self._clock.now():
                return "this token is too old"
            record = {"proof": proof, "machine": dict(machine), "joined_at": rfc3339(self._clock.now())}
            write_whole(self._workers / f"{worker}.json", canonical_json(record))
        self.saw(worker, machine)
        return None

    def who(self, credential: str) -> str | None:
        """The worker whose credential this is."""
        worker, _, secret = credential.partition(".")
        if not _WORKER.fullmatch(worker):
            return None
        record = read_json(self._workers / f"{worker}.json")
        is_right = record is not None and hmac.compare_digest(record["proof"], _hash(secret))
        return worker if is_right else None

    def saw(self, worker: str, machine: Mapping[str, Any] | None = None) -> None:
        path = self._workers / f"{worker}.json"
        record = read_json(path)
        if machine is not None and record is not None and record["machine"] != dict(machine):
            write_whole(path, canonical_json(record | {"machine": dict(machine)}))
        touch_at(self._workers / f"{worker}.seen", self._clock.now())

    def left(self, worker: str) -> None:
        """It said that it ends: it is not on offer until it calls again."""
        (self._workers / f"{worker}.seen").unlink(missing_ok=True)

    def known(self) -> list[Known]:
        found = (self._known(path) for path in sorted(self._workers.glob("w-*.json")))
        return [one for one in found if one is not None]

    def machine(self, worker: str) -> Mapping[str, Any]:
        """Empty for one that is forgotten."""
        record = read_json(self._workers / f"{worker}.json")
        return record["machine"] if record else {}

    def dismiss(self, worker: str) -> None:
        """Its next question is answered with a goodbye; what it trains is paused first. Raises NotFound."""
        if not (_WORKER.fullmatch(worker) and (self._workers / f"{worker}.json").exists()):
            raise NotFound(f"no worker is called {worker!r}", fix="elias worker list")
        (self._workers / f"{worker}.dismissed").touch()

    def is_dismissed(self, worker: str) -> bool:
        return (self._workers / f"{worker}.dismissed").exists()

    def drop(self, worker: str) -> None:
        (self._workers / f"{worker}.gone").touch()
        for ending in ("json", "seen", "dismissed"):
            (self._workers / f"{worker}.{ending}").unlink(missing_ok=True)

    def _known(self, path: Path) -> Known | None:
        record = read_json(path)
        if record is None:  # it heard in this moment that it is not wanted any more
            return None
        joined = instant(record["joined_at"])
        seen = path.with_suffix(".seen")
        return Known(
            id=path.stem,
            machine=record["machine"],
            joined_at=joined,
            seen_at=seen_at(seen) or joined,
            is_dismissed=self.is_dismissed(path.stem),
        )

    def _until(self, path: Path) -> datetime:
        return instant(json.loads(path.read_bytes())["until"])

    def _claim(self, used: Path, who: str) -> bool:
        """Whether the token is this worker's, from now or from before."""
        scratch = used.with_name(f".{used.name}.{secrets.token_hex(4)}.part")
        scratch.write_text(who)
        try:
            os.link(scratch, used)
            return True
        except FileExistsError:
            return hmac.compare_digest(used.read_text(), who)
        finally:
            scratch.unlink()

    def _drop_old_tokens(self) -> None:
        """Long over; a used one is kept as long, so that it is known as used."""
        for path in self._tokens.glob("*.json"):
            if self._clock.now() - self._until(path) > timedelta(days=30):
                path.with_suffix(".used").unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def seen_at(path: Path) -> datetime | None:
    """When `touch_at` was last here."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def touch_at(path: Path, at: datetime) -> None:
    """An instant kept as a file's own time: it is written every few seconds."""
    path.touch()
    os.utime(path, (at.timestamp(), at.timestamp()))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
