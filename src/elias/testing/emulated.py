"""What emulated services share: what they are told in files, what they were asked, and what goes wrong, on demand."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from elias_trainer.contract import write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnyFault:
    """What goes wrong, in which call, how often."""

    kind: StrEnum
    call: str
    times: int = 1
    after: int = 0
    """How many calls go well before it begins."""


S = TypeVar("S", bound="DataclassInstance")
"""An emulator's settings, a dataclass."""
F = TypeVar("F", bound=AnyFault)


class Faults(Generic[F]):
    """Those that are still to come, in `faults.json`; a lock file lets processes add while the emulator takes."""

    def __init__(self, path: Path, fault: type[F], kinds: type[StrEnum]) -> None:
        self._path = path
        self._fault = fault
        self._kinds = kinds

    def add(self, fault: F) -> None:
        with self._held():
            self._write([*self.pending(), fault])

    def clear(self) -> None:
        with self._held():
            self._write([])

    def pending(self) -> list[F]:
        if not self._path.exists():
            return []
        raws = json.loads(self._path.read_bytes())
        return [self._fault(**{**raw, "kind": self._kinds(raw["kind"])}) for raw in raws]

    def take(self, call: str, wanted: Callable[[F], bool] = lambda fault: True) -> F | None:
        """The first fault for this call that is wanted, used up by one."""
        with self._held():
            pending = self.pending()
            for index, fault in enumerate(pending):
                if fault.call != call or not wanted(fault):
                    continue
                if fault.after:
                    pending[index] = dataclasses.replace(fault, after=fault.after - 1)
                    self._write(pending)
                    return None
                pending[index] = dataclasses.replace(fault, times=fault.times - 1)
                self._write([left for left in pending if left.times])
                return fault
        return None

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, faults: list[F]) -> None:
        write_whole(self._path, json.dumps([dataclasses.asdict(fault) for fault in faults]).encode())


class EmulatedDisk(Generic[S, F]):
    """One per emulator; other processes may open the same root to look, to give orders and to travel in time."""

    def __init__(self, root: Path, settings: type[S], fault: type[F], kinds: type[StrEnum]) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.faults = Faults(root / "faults.json", fault, kinds)
        self.lock = threading.RLock()
        self._settings = settings

    @property
    def settings(self) -> S:
        return self._settings(**(read(self.root / "settings.json") or {}))

    def configure(self, **changes: Any) -> None:
        write(self.root / "settings.json", dataclasses.asdict(self.settings) | changes)

    def record(self, call: str, body: Any) -> None:
        """Each request as the client sent it, for whoever compares or counts."""
        with self.lock, (self.root / "requests.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"call": call, "body": body}) + "\n")

    def requests(self, call: str | None = None) -> list[Json]:
        path = self.root / "requests.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # the server may be in the middle of a line
        return [entry for line in whole.splitlines() if (entry := json.loads(line)) and call in (None, entry["call"])]


def read(path: Path) -> Json | None:
    """A JSON object, or None where there is no file."""
    try:
        value: Json = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return value


def write(path: Path, value: object) -> None:
    write_whole(path, json.dumps(value, indent=1).encode())
