"""What tests ask of any backend that is polled: one segment, until something is so of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias.domain.run import SegmentState
from elias.ports.backend import Status
from elias.testing.fake_trainer import fake_base
from elias_trainer.contract import BaseModel


@dataclass(kw_only=True)
class PolledPlace:
    """A backend and the emulated service behind it, as a test speaks to them."""

    backend: Any
    home: Path
    key: str = "faults-0001"

    def held(self, steps: int, step_s: float = 0.01) -> BaseModel:
        """A base whose training does no more than these steps until `let_go`: it lasts while somebody looks at it."""
        self._hold.touch()
        return fake_base(step_s=step_s, held=(self._hold, steps))

    def let_go(self) -> None:
        self._hold.unlink()

    @property
    def _hold(self) -> Path:
        return self.home / "hold"

    def until(self, is_so: Callable[[Status], bool], within_s: float = 300.0) -> list[Status]:
        """Poll until a status is so; all that were seen."""
        seen: list[Status] = []
        end = time.monotonic() + within_s
        while not seen or not is_so(seen[-1]):
            assert time.monotonic() < end, f"nothing came of it; last seen: {seen[-1:]}"
            status = self.backend.poll(self.key)
            list(self.backend.events(self.key, -1))
            seen += [status] if not seen or status != seen[-1] else []
            time.sleep(0.02)
        return seen

    def ended(self) -> Status:
        return self.until(lambda status: status.state.is_final)[-1]

    def running(self) -> Status:
        return self.until(lambda status: status.state is SegmentState.RUNNING)[-1]

    def checkpoint(self) -> int:
        """The step of the one that came home; 0 where none did."""
        self.backend.fetch(self.key, self.home / "home")
        steps = [int(path.name.removeprefix("step-")) for path in (self.home / "home").glob("checkpoint/step-*")]
        return max(steps, default=0)
