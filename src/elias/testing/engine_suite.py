"""What every durable engine must do. Subclass it, and override the fixture `make_engine`.

class TestMyEngine(EngineSuite):
    @pytest.fixture
    def make_engine(self, tmp_path):
        return lambda: MyEngine(tmp_path)    # each call another engine over the same store
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from elias.errors import BackendError, EliasError, Refused
from elias.ports.durable import DurableEngine, Steps, Workflow
from elias.testing.waiting import PATIENCE_S, wait_until

TO_ITS_END = timedelta(seconds=PATIENCE_S)
MakeEngine = Callable[[], DurableEngine]


class Calls:
    """Counts what really ran."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.answers: list[Any] = []

    def __call__(self, name: str) -> str:
        self.count[name] += 1
        return name

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, lambda: f"calls so far: {self.count}")

    def wait_for_call(self, name: str, times: int = 1) -> None:
        self.wait_for(lambda: self.count[name] >= times)


class EngineSuite:
    @pytest.fixture
    def make_engine(self) -> MakeEngine:
        pytest.fail("override the fixture `make_engine`")

    @pytest.fixture
    def calls(self) -> Calls:
        return Calls()

    @pytest.fixture
    def launched(self, make_engine: MakeEngine) -> Iterator[Callable[[Workflow], DurableEngine]]:
        """Makes and launches an engine with this workflow as `work`; all are stopped at the end."""
        made: list[DurableEngine] = []

        def launch(workflow: Workflow) -> DurableEngine:
            engine = make_engine()
            engine.register("work", workflow)
            engine.launch()
            made.append(engine)
            return engine

        yield launch
        for engine in made:
            engine.stop()

    def test_a_workflow_runs_under_its_key(self, launched: Any, calls: Calls) -> None:
        engine = launched(lambda steps, key: steps.step("say", calls, key))
        engine.start("work", "run-1")
        engine.start("work", "run-2")
        calls.wait_for_call("run-1")
        calls.wait_for_call("run-2")

    def test_what_was_started_before_launch_runs_at_launch(
        self, make_engine: MakeEngine, launched: Any, calls: Calls
    ) -> None:
        outside = make_engine()
        outside.start("work", "run-1")
        outside.stop()
        launched(lambda steps, key: steps.step("say", calls, key))
        calls.wait_for_call("run-1")

    def test_starting_twice_is_starting_once(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, key)

        engine = launched(workflow)
        for _ in range(3):
            engine.start("work", "run-1")
        calls.wait_for_call("run-1")
        engine.start("work", "run-1")
        engine.start("work", "run-2")
        calls.wait_for_call("run-2")
        assert calls.count["run-1"] == 1

    def test_an_ended_key_can_be_put_in_the_queue_once_more(self, launched: Any, calls: Calls) -> None:
        engine = launched(lambda steps, key: steps.step("say", calls, key))
        engine.restart("work", "run-1")
        for times in (1, 2, 3):
            calls.wait_for_call("run-1", times)
            engine.restart("work", "run-1", TO_ITS_END)
        calls.wait_for_call("run-1", 4)

    def test_one_that_is_about_to_end_is_waited_for_as_long_as_is_said(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, key)
            time.sleep(3)

        engine = launched(workflow)
        engine.start("work", "run-1")
        calls.wait_for_call("run-1")
        engine.restart("work", "run-1", TO_ITS_END)
        calls.wait_for_call("run-1", 2)

    def test_restarting_what_has_not_ended_is_of_no_effect(self, launched: Any, calls: Calls) -> None:
        gate = threading.Event()

        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, key)
            steps.step("wait", gate.wait, PATIENCE_S)

        engine = launched(workflow)
        engine.start("work", "run-1")
        calls.wait_for_call("run-1")
        engine.restart("work", "run-1")
        gate.set()
        engine.start("work", "run-2")
        calls.wait_for_call("run-2")
        assert calls.count["run-1"] == 1

    def test_a_key_is_not_taken_for_another_that_begins_alike(self, launched: Any, calls: Calls) -> None:
        engine = launched(lambda steps, key: steps.step("say", calls, key))
        engine.start("work", "run-10")
        calls.wait_for_call("run-10")
        engine.start("work", "run-1")
        calls.wait_for_call("run-1")

    @pytest.mark.parametrize("key", ["", "a b", "a#2", "%"])
    def test_a_key_that_cannot_be_one_is_a_value_error(self, launched: Any, calls: Calls, key: str) -> None:
        with pytest.raises(ValueError, match="key"):
            launched(lambda steps, key: None).start("work", key)

    def test_an_unknown_workflow_is_a_value_error(self, launched: Any) -> None:
        with pytest.raises(ValueError, match="other"):
            launched(lambda steps, key: None).start("other", "run-1")

    def test_an_answer_is_what_json_makes_of_it(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            calls.answers.append(steps.step("pair", lambda a, b: {"pair": (a, b), "none": None}, 1, "b"))

        launched(workflow).start("work", "run-1")
        calls.wait_for(lambda: bool(calls.answers))
        assert calls.answers == [{"pair": [1, "b"], "none": None}]

    def test_the_error_of_a_step_reaches_the_workflow_with_all_it_says(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            for step in (_fail_with_fix, _fail_in_python, object):
                try:
                    steps.step("fail", step)
                except Exception as error:  # noqa: BLE001  # the test looks at each of them
                    calls.answers.append(error)

        launched(workflow).start("work", "run-1")
        calls.wait_for(lambda: len(calls.answers) == 3)
        ours, python, not_json = calls.answers
        assert isinstance(ours, BackendError)
        assert (ours.what, ours.fix, ours.kept) == ("it is full", "wait", "the checkpoint")
        assert isinstance(python, ZeroDivisionError)
        assert isinstance(not_json, TypeError)

    def test_a_workflow_that_fails_does_not_stop_the_others(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, key)
            if key == "bad":
                raise BackendError("it is full", fix="wait")

        engine = launched(workflow)
        engine.start("work", "bad")
        engine.start("work", "good")
        calls.wait_for_call("good")
        calls.wait_for_call("bad")
        engine.restart("work", "bad", TO_ITS_END)
        calls.wait_for_call("bad", 2)

    def test_sleepers_do_not_hold_up_each_other(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, f"{key} begun")
            steps.sleep(timedelta(seconds=0.3))
            steps.step("say", calls, f"{key} ended")

        engine = launched(workflow)
        for n in range(4):
            engine.start("work", f"run-{n}")
        for n in range(4):
            calls.wait_for_call(f"run-{n} ended")

    def test_a_second_engine_of_the_same_identity_is_refused(self, make_engine: MakeEngine, launched: Any) -> None:
        launched(lambda steps, key: None)
        second = make_engine()
        with pytest.raises(Refused) as raised:
            second.launch()
        assert raised.value.fix
        second.stop()

    def test_stopping_lets_the_next_engine_go_on_where_this_one_was(self, launched: Any, calls: Calls) -> None:
        gate = threading.Event()

        def workflow(steps: Steps, key: str) -> None:
            steps.step("one", calls, "one")
            try:
                steps.step("two", _fail_with_fix)
            except EliasError as error:
                calls.answers.append(error)
            steps.step("three", calls, "three")
            steps.step("wait", gate.wait, PATIENCE_S)
            steps.sleep(timedelta(hours=5))
            steps.step("four", calls, "four")

        first = launched(workflow)
        first.start("work", "run-1")
        calls.wait_for_call("three")
        threading.Timer(0.1, gate.set).start()
        first.stop()
        assert calls.count["four"] == 0
        second = launched(workflow)
        calls.wait_for(lambda: len(calls.answers) == 2)
        second.stop()
        assert calls.count == Counter(one=1, three=1)
        assert [(type(error), error.what, error.fix, error.kept) for error in calls.answers] == [
            (BackendError, "it is full", "wait", "the checkpoint")
        ] * 2

    def test_stopping_does_not_wait_for_a_sleeper_and_the_sleep_goes_on(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, "before")
            steps.sleep(timedelta(seconds=1))
            steps.step("say", calls, "after")

        first = launched(workflow)
        first.start("work", "run-1")
        calls.wait_for_call("before")
        first.stop()
        launched(workflow)
        calls.wait_for_call("after")
        assert calls.count["before"] == 1

    def test_stopping_breaks_off_a_sleep_of_hours_and_others_start_beside_it(self, launched: Any, calls: Calls) -> None:
        def workflow(steps: Steps, key: str) -> None:
            steps.step("say", calls, key)
            steps.sleep(timedelta(hours=5))

        engine = launched(workflow)
        engine.start("work", "run-1")
        calls.wait_for_call("run-1")
        time.sleep(0.2)  # into the sleep
        engine.start("work", "run-2")
        calls.wait_for_call("run-2")
        time.sleep(0.2)
        engine.stop()

    def test_stopping_twice_or_before_launch_is_of_no_effect(self, make_engine: MakeEngine) -> None:
        engine = make_engine()
        engine.stop()
        engine.register("work", lambda steps, key: None)
        engine.launch()
        engine.stop()
        engine.stop()

    def test_registering_after_launch_is_a_value_error(self, launched: Any) -> None:
        with pytest.raises(ValueError, match="launch"):
            launched(lambda steps, key: None).register("late", lambda steps, key: None)


def _fail_with_fix() -> None:
    raise BackendError("it is full", fix="wait", kept="the checkpoint")


def _fail_in_python() -> None:
    raise ZeroDivisionError("by nothing")
