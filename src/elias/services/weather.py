"""Watches what the node cannot do just now: each cause is looked at again and again; a state leaves with its cause."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from elias.domain.degraded import Degraded
from elias.errors import EliasError
from elias.units import Clock, instant, rfc3339
from elias_trainer.contract import write_whole

log = logging.getLogger("elias.weather")

LOOK_EVERY = timedelta(seconds=5)
Source = Callable[[datetime], Iterable[Degraded]]
"""The states that have a cause now; raises an EliasError where nobody can say, and then they stay as they were."""


class Weather:
    """`since` of a state outlives a restart: it is kept in `file`."""

    def __init__(self, sources: Mapping[str, Source], file: Path, clock: Clock) -> None:
        self._sources, self._file, self._clock = sources, file, clock
        self._by_source: dict[str, Sequence[Degraded]] = {}
        self._since = _read(file)
        self._lock = threading.Lock()

    def states(self) -> Sequence[Degraded]:
        """As they were seen last, the oldest first."""
        with self._lock:
            found = [state for states in self._by_source.values() for state in states]
        return sorted(found, key=lambda state: (state.since, state.name, state.about))

    def look(self) -> Sequence[Degraded]:
        """Once, at every cause."""
        now = self._clock.now()
        for name, source in self._sources.items():
            try:
                found = [self._remembered(state) for state in source(now)]
            except EliasError as error:
                log.info("weather.unknown source=%s what=%s", name, error.what)
                continue
            with self._lock:
                before, self._by_source[name] = self._by_source.get(name, ()), found
            _tell(before, found)
        self._keep()
        return self.states()

    def _remembered(self, state: Degraded) -> Degraded:
        return replace(state, since=min(state.since, self._since.get(_key(state), state.since)))

    def _keep(self) -> None:
        since = {_key(state): state.since for state in self.states()}
        if since != self._since:
            self._since = since
            write_whole(self._file, json.dumps({key: rfc3339(at) for key, at in since.items()}).encode())


def _key(state: Degraded) -> str:
    return f"{state.name} {state.about}".rstrip()


def _tell(before: Sequence[Degraded], after: Sequence[Degraded]) -> None:
    old, new = ({_key(state): state for state in states} for states in (before, after))
    for key in new.keys() - old.keys():
        log.warning("degraded.begins state=%s cause=%s", key, new[key].cause)
    for key in old.keys() - new.keys():
        log.info("degraded.ends state=%s", key)


def _read(file: Path) -> dict[str, datetime]:
    """Nothing where there is no file, or one that nobody can read: a state then begins when it is seen."""
    try:
        return {key: instant(text) for key, text in json.loads(file.read_bytes()).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
