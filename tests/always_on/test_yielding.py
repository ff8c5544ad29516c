"""Training makes way for inference on a real node, and ends with the bytes of a run that was left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx

from elias.adapters.backends import making_way
from elias.domain.run import RunState, SegmentState
from elias.services.habit import read_habit
from elias.testing.waiting import wait_until
from elias.wiring.guard import habit_file
from elias_trainer.contract import FailureKind

STEPS = 60


def ask(url: str, words: int) -> int:
    question = {"messages": [{"role": "user", "content": "word " * words}]}
    return httpx.post(f"{url}/v1/chat/completions", json=question, timeout=1200).status_code


def test_a_run_makes_way_for_requests_comes_back_and_ends_with_the_adapter_of_one_left_alone(
    open_living, echo, monkeypatch
):
    monkeypatch.setattr(making_way, "FREEZE_AFTER_S", 3600.0)  # however long it takes to pause on a busy machine
    living = open_living(queue_bound=1, calm_for=timedelta(seconds=1))
    alone = living.until_done(living.train(STEPS))
    disturbed = living.train(STEPS)
    living.until_step(disturbed, 1)
    stands = living.trainers()
    for process in stands:
        process.suspend()  # so that it has not ended when it is told to make way
    echo.pause_s = 0.1
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, living.url, 5000) for _ in range(4)]
        wait_until(lambda: list(living.home.glob("backends/local/segments/*/made_way.json")))
        for process in stands:
            process.resume()
        wait_until(lambda: living.segments(disturbed)[0].state.is_final)
        wait_until(lambda: living.run(disturbed).state is not RunState.RUNNING)
        assert living.run(disturbed).state is RunState.WAITING
        wait_until(lambda: not living.trainers())
        assert not any(request.done() for request in asked), "it made way while they were being answered"
        assert "inference needs this machine" in (living.run(disturbed).reason or "")
        echo.pause_s = 0.0
        assert [request.result() for request in asked] == [200] * 4
    first = living.segments(disturbed)[0]
    assert (first.state, first.failure and first.failure.kind) == (SegmentState.PAUSED, FailureKind.PREEMPTED)
    ended = living.until_done(disturbed)
    first, second = living.segments(disturbed)
    assert first.end and second.start == first.end and 1 <= first.end.step < STEPS
    assert ended.artifact == alone.artifact
    seen = read_habit(habit_file(living.node.config))
    assert seen is not None and sum(seen.taken) > 0, "the next plan knows when this machine was wanted"
