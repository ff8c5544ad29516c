"""The engine in memory: a turn is given to whoever is there to take it."""

from __future__ import annotations

import threading
import time
from typing import Any

from elias.testing.inline_engine import InlineEngine
from elias.testing.places.world import WorldClock


class Lingering(InlineEngine):
    """Its threads live for a moment after their workflow has ended, as on a busy machine."""

    def _run(self, work: Any) -> None:
        super()._run(work)
        time.sleep(1)


def test_a_workflow_that_is_started_anew_while_its_thread_still_lives_is_carried_out() -> None:
    carried: list[str] = []
    engine = Lingering(WorldClock())
    engine.register("w", lambda steps, key: carried.append(key))
    engine.launch()
    engine.start("w", "a")
    engine.join()
    engine.restart("w", "a")
    ended = threading.Thread(target=engine.join, daemon=True)
    ended.start()
    ended.join(60)
    assert carried == ["a", "a"]
    engine.stop()
