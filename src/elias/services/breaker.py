"""A place's circuit breaker, kept in a file so that a restart neither forgets that it is down nor when to probe."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

from elias.domain.circuit import Circuit, CircuitRule
from elias.units import Clock, instant, rfc3339
from elias_trainer.contract import write_whole

log = logging.getLogger("elias.breaker")
CIRCUIT_FILE = "circuit.json"


class Breaker:
    """Safe from any thread. Of two processes the last word counts: at worst a place is asked once more."""

    def __init__(self, name: str, file: Path, clock: Clock, rule: CircuitRule | None = None) -> None:
        self.name = name
        self._file, self._clock, self._rule = file, clock, rule or CircuitRule()
        self._lock = threading.Lock()

    def circuit(self) -> Circuit:
        """As it stands."""
        return _read(self._file)

    def is_down(self) -> Circuit | None:
        """The circuit while it is open; None where it is closed, or where this call is to be the probe."""
        with self._lock:
            found, now = _read(self._file), self._clock.now()
            if found.down_since is None:
                return None
            if found.may_probe(now):
                self._write(found.claimed(now, self._rule))
                return None
            return found

    def failed(self, why: str) -> None:
        with self._lock:
            before = _read(self._file)
            after = before.failed(why, self._clock.now(), self._rule)
            self._write(after)
        if before.down_since is None and after.down_since is not None:
            log.warning("breaker.opens place=%s %s", self.name, after.words)

    def worked(self) -> None:
        with self._lock:
            before = _read(self._file)
            if before != Circuit():
                self._write(Circuit())
        if before.down_since is not None:
            log.info("breaker.closes place=%s down_since=%s", self.name, rfc3339(before.down_since))

    def _write(self, circuit: Circuit) -> None:
        plain = {name: getattr(circuit, name) for name in _PLAIN}
        moments = {name: getattr(circuit, name) for name in _MOMENTS}
        plain |= {name: rfc3339(moment) if moment else None for name, moment in moments.items()}
        write_whole(self._file, json.dumps(plain).encode())


_PLAIN = ("failures", "is_probed", "probes", "cause")
_MOMENTS = ("first_at", "down_since", "probe_at")


def _read(file: Path) -> Circuit:
    """Closed where there is no file, or one that nobody can read: then the place itself is asked."""
    try:
        raw = json.loads(file.read_bytes())
        values: dict[str, Any] = {name: instant(raw[name]) if raw[name] else None for name in _MOMENTS}
        return Circuit(**values | {name: raw[name] for name in _PLAIN})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Circuit()
