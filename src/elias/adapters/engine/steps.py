"""What a workflow may use, on DBOS."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from dbos import DBOS
from dbos import error as dbos_error

from elias.adapters.engine.at_work import AtWork, Stopping
from elias.adapters.engine.recorded import outcome_of, replay
from elias.errors import StoreError
from elias.units import Clock, instant, rfc3339

_NAP_S = 30.0
"""A sleeper looks at the clock this often, so that a laptop's own sleep counts."""


class DbosSteps:
    def __init__(self, at_work: AtWork, clock: Clock, is_ours: Callable[[], bool] = lambda: True) -> None:
        """`is_ours`: whether no other node has adopted this workflow meanwhile; asked before each step."""
        self._at_work = at_work
        self._clock = clock
        self._is_ours = is_ours

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self._at_work.go_on()
        if not self._is_ours():
            raise Stopping
        try:
            outcome = DBOS.run_step({"name": name}, outcome_of, function, arguments)
        except dbos_error.DBOSUnexpectedStepError as error:
            raise StoreError(
                f"the program changed under work in progress: {error}",
                kept="what its steps did",
                fix="start it once more: elias run resume",
            ) from error
        return replay(outcome)

    def sleep(self, span: timedelta) -> None:
        """The instant to wake is recorded as a step; the waiting itself can be broken off."""
        until = instant(self.step("sleep", lambda: rfc3339(self._clock.now() + span)))
        while (left_s := _seconds(self._clock.now(), until)) > 0:
            self._at_work.nap(min(left_s, _NAP_S))


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()
