"""The segments of this place on the node's disk: what waits, who took it, what came home. Any process may look.

<segment>/order.json parcel/ segment.key     what goes out
          claim.json                         which worker has it; appears once
          heard started renewed              times; somebody waits for it
          pause cancel                       what is wanted
          live/{events.jsonl, log.txt}       as far as they were told
          arriving/<sha256>[.part]           outputs on their way
          outbox/ out/ opened                the newest that came whole, and opened
          reported.json ended.json           the worker's last word; how it ended, which stays
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from elias.adapters.backends.output import link_or_copy, read_json
from elias.adapters.backends.parcels import open_as_it_comes, read_box
from elias.adapters.backends.worker.register import seen_at, touch_at
from elias.errors import BackendError, DigestMismatch
from elias.units import Clock, rfc3339
from elias_trainer.contract import canonical_json, digest_file, write_whole
from elias_trainer.parcel import OUTBOX_FILE

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
HEX = re.compile(r"[0-9a-f]{64}")
SEGMENTS_FOLDER = "segments"
TAILS = ("events", "log")
_LIVE = {"events": "events.jsonl", "log": "log.txt"}
_MOST_LIVE_BYTES = 256 << 20


class NotYours(Exception):
    """No segment of that worker, or one that has ended; the text says which."""


class TooMuch(Exception):
    """More than a segment may bring home."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    digest: str
    begin: int
    size: int
    """Of the whole file."""
    data: bytes


class Inbox:
    def __init__(self, home: Path, clock: Clock, most_bytes: int) -> None:
        self._segments = home / SEGMENTS_FOLDER
        self._clock = clock
        self._most_bytes = most_bytes

    def folder(self, key: str) -> Path:
        """Raises BackendError for what is no key."""
        if not NAME.fullmatch(key):
            raise BackendError(f"{key!r} is no segment of this place", fix="elias run list")
        return self._segments / key

    @contextmanager
    def locked(self, key: str) -> Iterator[Path]:
        """Its folder, which no other thread or process changes meanwhile."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder

    def under_way(self) -> list[Path]:
        """Not ended, oldest first."""
        found = [path.parent for path in self._segments.glob("*/order.json")]
        open_ones = [folder for folder in found if not (folder / "ended.json").exists()]
        return sorted(open_ones, key=lambda folder: (folder / "order.json").stat().st_mtime)

    # What a worker does

    def of_worker(self, worker: str) -> Path | None:
        """The segment that it has, as far as this node knows."""
        for folder in self.under_way():
            claim = read_json(folder / "claim.json")
            if claim and claim["worker"] == worker and not (folder / "reported.json").exists():
                return folder
        return None

    def claim(self, folder: Path, worker: str, machine: Mapping[str, Any]) -> bool:
        """Whether it is that worker's now."""
        with self.locked(folder.name):
            if (folder / "ended.json").exists() or (folder / "claim.json").exists() or self.wish(folder) != "go":
                return False
            found = {"worker": worker, "machine": dict(machine), "at": rfc3339(self._clock.now())}
            write_whole(folder / "claim.json", canonical_json(found))
            touch_at(folder / "heard", self._clock.now())
            return True

    def let_go(self, worker: str) -> None:
        """It leaves: what it had not begun is there for another; what it had begun is over."""
        folder = self.of_worker(worker)
        if folder is not None:
            with self.locked(folder.name):
                if (folder / "started").exists():
                    self._reported(folder, {"code": None, "problem": None})
                else:
                    (folder / "claim.json").unlink(missing_ok=True)

    def parcel_file(self, key: str, worker: str, name: str) -> Path:
        folder = self._of(key, worker)
        path = folder / "parcel" / name
        if not NAME.fullmatch(name) or not path.is_file():
            raise NotYours(f"no file {name!r}")
        return path

    def report(self, key: str, worker: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """What was told is kept; the answer says what the node has of it, and what is wanted."""
        with self._of_locked(key, worker) as folder:
            touch_at(folder / "heard", self._clock.now())
            if told["state"] == "running" and not (folder / "started").exists():
                write_whole(folder / "started", rfc3339(self._clock.now()).encode())
            has = {name: self._append(folder / "live" / _LIVE[name], told[name]) for name in TAILS}
            if told["state"] == "ended":
                self._reported(folder, {"code": told["code"], "problem": told["problem"]})
            is_renewed = (folder / "renewed").exists()
            (folder / "renewed").unlink(missing_ok=True)
            return {"has": has, "renew": is_renewed, "want": self.wish(folder)}

    def has_of(self, key: str, worker: str, digest: str, size: int) -> int:
        """How many bytes of that output are here. One that arrived changed counts as nothing."""
        with self._of_locked(key, worker) as folder:
            return self._has(_arriving(folder, digest), digest, size)

    def take(self, key: str, worker: str, chunk: Chunk) -> tuple[int, bool]:
        """How many bytes are here now, and whether they went on from what was. Raises DigestMismatch, TooMuch."""
        with self._of_locked(key, worker) as folder:
            path = _arriving(folder, chunk.digest)
            touch_at(folder / "heard", self._clock.now())
            have, part = self._has(path, chunk.digest, chunk.size), path.with_suffix(".part")
            if path.exists() or chunk.begin != have or have + len(chunk.data) > chunk.size:
                return have, False
            others = sum(one.stat().st_size for one in path.parent.iterdir() if one != part)
            if others + chunk.size > self._most_bytes:
                raise TooMuch(f"outputs of more than {self._most_bytes >> 30} GiB")
            with part.open("ab") as stream:
                stream.write(chunk.data)
            if have + len(chunk.data) == chunk.size and self._has(path, chunk.digest, chunk.size) != chunk.size:
                raise DigestMismatch(f"{chunk.digest} arrived changed", fix="it is sent again by itself")
            return have + len(chunk.data), True

    def publish(self, key: str, worker: str, text: str) -> list[str]:
        """Take the list of what is whole there for the outbox; which of it is not here. Raises DigestMismatch."""
        with self._of_locked(key, worker) as folder:
            arriving, outbox = folder / "arriving", folder / "outbox"
            box = read_box(arriving / OUTBOX_FILE, text)
            if missing := [digest.hex for digest in box.files.values() if not (arriving / digest.hex).exists()]:
                return missing
            outbox.mkdir(exist_ok=True)
            for name, digest in box.files.items():
                if not ((outbox / name).is_file() and digest_file(outbox / name) == digest):
                    (outbox / name).unlink(missing_ok=True)
                    link_or_copy(str(arriving / digest.hex), str(outbox / name))
            box.write(outbox)
            named = {digest.hex for digest in box.files.values()}
            for path in (*outbox.glob("checkpoint-*"), *arriving.iterdir()):
                is_old = path.name not in (box.files if path.parent == outbox else named)
                if is_old and (path.parent == outbox or HEX.fullmatch(path.name)):
                    path.unlink()
            return []

    # What the node does

    def open_newest(self, folder: Path, node_key: str | None) -> None:
        """Into `out/`. Raises DigestMismatch, VerificationError. The caller holds the lock."""
        path = folder / "outbox" / OUTBOX_FILE
        if path.exists():
            box = read_box(folder / "arriving" / OUTBOX_FILE, path.read_text(encoding="utf-8"))
            open_as_it_comes(folder, box, node_key)

    def end(self, folder: Path, record: Mapping[str, Any]) -> None:
        """From now on it stays."""
        write_whole(folder / "ended.json", canonical_json(dict(record)))
        for name in ("parcel", "arriving"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "segment.key").unlink(missing_ok=True)

    def wish(self, folder: Path) -> str:
        return next((wish for wish in ("cancel", "pause") if (folder / wish).exists()), "go")

    def heard_at(self, folder: Path) -> datetime | None:
        return seen_at(folder / "heard")

    def _reported(self, folder: Path, last: Mapping[str, Any]) -> None:
        if not (folder / "reported.json").exists():
            write_whole(folder / "reported.json", canonical_json({**last, "at": rfc3339(self._clock.now())}))

    def _of(self, key: str, worker: str) -> Path:
        """Its folder. Raises NotYours, with the same words for a segment of another worker and for none at all."""
        folder = self._segments / key
        claim = read_json(folder / "claim.json") if NAME.fullmatch(key) else None
        if claim is None or claim["worker"] != worker:
            raise NotYours("this worker has no such segment")
        if (folder / "ended.json").exists():
            raise NotYours("its segment was given up or has ended")
        return folder

    @contextmanager
    def _of_locked(self, key: str, worker: str) -> Iterator[Path]:
        self._of(key, worker)
        with self.locked(key):
            yield self._of(key, worker)

    def _has(self, path: Path, digest: str, size: int) -> int:
        part = path.with_suffix(".part")
        if not path.exists() and part.exists() and part.stat().st_size >= size:
            if part.stat().st_size == size and digest_file(part).hex == digest:
                part.replace(path)
            else:
                part.unlink()
        return next((one.stat().st_size for one in (path, part) if one.exists()), 0)

    def _append(self, path: Path, tail: Mapping[str, Any]) -> int:
        have = path.stat().st_size if path.exists() else 0
        data = str(tail["text"]).encode()
        if data and tail["from"] == have and have + len(data) <= _MOST_LIVE_BYTES:
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as stream:
                stream.write(data)
            have += len(data)
        return have


def _arriving(folder: Path, digest: str) -> Path:
    if not HEX.fullmatch(digest):
        raise NotYours("that is no digest")
    path = folder / "arriving" / digest
    path.parent.mkdir(exist_ok=True)
    return path
