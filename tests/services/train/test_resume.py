"""A run that was told to go on does, however long its workflow takes to end after its last word."""

from __future__ import annotations

import threading

from elias.adapters.clock import SystemClock
from elias.domain.run import RunState
from elias.ports.durable import Steps
from elias.services.runs import PERHAPS_ITS_LAST_WORD, Runs
from elias.services.train import WORKFLOW
from elias.testing.inline_engine import InlineEngine
from elias.testing.waiting import wait_until


def test_a_paused_run_is_carried_on_though_its_workflow_takes_its_time_to_end(world):
    run, runs, carried = world.run(), world.stores.runs, []
    may_end, engine = threading.Event(), InlineEngine(SystemClock())

    def carry(steps: Steps, key: str) -> None:
        carried.append(key)
        runs.update(key, state=RunState.PAUSED)
        may_end.wait()

    engine.register(WORKFLOW, carry)
    engine.launch()
    engine.start(WORKFLOW, run.id)
    wait_until(lambda: runs.get(run.id).state is RunState.PAUSED)
    late = threading.Timer(PERHAPS_ITS_LAST_WORD.total_seconds() + 1, may_end.set)
    late.start()
    Runs(store=runs, engine=engine, backends=world.backends).resume(run.id)
    wait_until(lambda: carried == [run.id, run.id])
    late.join()
    engine.stop()
