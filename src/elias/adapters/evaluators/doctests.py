"""Held-out functions, written anew by each contender, against their own doctests in the sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from elias.adapters.evaluators.doctest_checks import Checked, check_body
from elias.adapters.evaluators.heldout import group_of, read_examples
from elias.adapters.sandbox import why_not
from elias.domain.corpus import DocTest, Example
from elias.domain.prompt import body_of
from elias.errors import EngineError, MissingPackage
from elias.ports.evaluator import Contender, EvaluatorContext, Measurement
from elias.ports.inference import Endpoint, InferenceEngine, ModelToServe
from elias_trainer.contract import BaseModel

METRIC = "doctests_passed"
_PROMPT_CHARACTERS_A_TOKEN = 2
"""Fewer than any tokenizer's average on code, so that what is taken fits the context."""
_ANSWER_WITHIN_S = 600.0
_SANDBOXES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    example: Example
    test: DocTest
    total: int


class Doctests:
    """Share of the doctests' expectations that hold; value = passed, weight = all.

    Takes the first `most` held-out functions, in order of id, whose own body passes all of its doctests in the
    sandbox: one that fails there (it needs another package, the network, a file) could judge nobody.
    """

    lower_is_better = False

    def __init__(self, context: EvaluatorContext) -> None:
        self.context = context
        self._most = context.bounds.functions
        self._notes: dict[str, str] = {}

    def measure(self, base: BaseModel, contenders: Sequence[Contender], heldout: Path) -> Sequence[Measurement]:
        """None where there is no sandbox, no engine or no function to test; `notes` says so. Raises EngineError."""
        self._notes = {}
        candidates = self._candidates(heldout)
        if not candidates:
            return self._nothing("no held-out function has doctests that can be run")
        if (reason := why_not()) is not None:
            return self._nothing(f"not run: {reason}")
        engine, reason = self._engine([_to_serve(base, contender) for contender in contenders])
        if engine is None:
            return self._nothing(f"not run: {reason}")
        tasks = self._tasks(candidates)
        if not tasks:
            return self._nothing(f"none of {len(candidates)} held-out functions passes its own doctests in the sandbox")
        return [found for contender in contenders for found in self._measure(engine, base, contender, tasks)]

    def notes(self) -> Mapping[str, str]:
        return dict(self._notes)

    def _nothing(self, why: str) -> Sequence[Measurement]:
        self._notes["doctests"] = why
        return ()

    def _candidates(self, heldout: Path) -> list[Example]:
        limit = self.context.sequence_length * _PROMPT_CHARACTERS_A_TOKEN
        with_tests = [example for example in read_examples(heldout) if example.doctest is not None]
        return sorted(
            (e for e in with_tests if sum(len(message.content) for message in e.messages[:-1]) <= limit),
            key=lambda example: example.id,
        )

    def _engine(self, models: Sequence[ModelToServe]) -> tuple[InferenceEngine | None, str]:
        """The first that can serve them all, so that each contender is served alike; else why there is none."""
        reasons = []
        for name, make in self.context.engines.items():
            try:
                engine = cast(InferenceEngine, make())
            except MissingPackage as error:
                reasons.append(f"{name}: {error.what}")
                continue
            reason = next((why for model in models if (why := engine.can_serve(model)) is not None), None)
            if reason is None:
                return engine, ""
            reasons.append(f"{name}: {reason}")
        return None, "no inference engine can serve the contenders (" + ("; ".join(reasons) or "none is there") + ")"

    def _tasks(self, candidates: Sequence[Example]) -> list[_Task]:
        tasks: list[_Task] = []
        failing = seen = 0
        for example in candidates:
            if len(tasks) == self._most:
                break
            seen += 1
            test = example.doctest
            assert test is not None
            own = check_body(test, body_of(example.messages[-1].content, test.indent, test.function))
            if own.total and own.passed == own.total:
                tasks.append(_Task(example=example, test=test, total=own.total))
            else:
                failing += 1
        self._notes["doctests"] = (
            f"{len(tasks)} functions with {sum(task.total for task in tasks)} expectations, the first in order of id "
            f"of {len(candidates)} (at most {self._most}); {failing} of {seen} tried left out, their own body does not "
            f"pass in the sandbox; greedy answers of at most {self.context.bounds.answer_tokens} tokens"
        )
        return tasks

    def _measure(
        self, engine: InferenceEngine, base: BaseModel, contender: Contender, tasks: Sequence[_Task]
    ) -> list[Measurement]:
        """Answers come one at a time, so that none depends on what else is in the batch; the sandbox runs beside."""
        with _serving(engine, _to_serve(base, contender), self.context.home) as endpoint:
            with ThreadPoolExecutor(_SANDBOXES) as pool:
                running, tokens = [], self.context.bounds.answer_tokens
                for number, task in enumerate(tasks, 1):
                    self.context.tell(f"doctests: {contender.name} writes function {number} of {len(tasks)}")
                    running.append((task, pool.submit(_check, task, _ask(endpoint, contender.name, task, tokens))))
            return [_measurement(contender, task, result.result()) for task, result in running]


def _check(task: _Task, answer: str) -> Checked:
    return check_body(task.test, body_of(answer, task.test.indent, task.test.function))


def _measurement(contender: Contender, task: _Task, checked: Checked) -> Measurement:
    return Measurement(
        metric=METRIC,
        contender=contender.name,
        example=task.example.id,
        value=checked.passed,
        weight=task.total,
        group=group_of(task.example),
    )


def _to_serve(base: BaseModel, contender: Contender) -> ModelToServe:
    return ModelToServe(base=base, adapter=contender.adapter, name=contender.name)


@contextmanager
def _serving(engine: InferenceEngine, model: ModelToServe, home: Path) -> Iterator[Endpoint]:
    log = home / "logs" / f"judge-{model.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    endpoint = engine.start(model, log)
    try:
        yield endpoint
    finally:
        engine.stop(endpoint)


def _ask(endpoint: Endpoint, name: str, task: _Task, most_tokens: int) -> str:
    request = {
        "model": name,
        "messages": [{"role": m.role, "content": m.content} for m in task.example.messages[:-1]],
        "temperature": 0,
        "seed": 0,
        "max_tokens": most_tokens,
    }
    try:
        response = httpx.post(
            f"{endpoint.url}/v1/chat/completions",
            json=request,
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            timeout=_ANSWER_WITHIN_S,
            trust_env=False,
        )
        response.raise_for_status()
        answer: Any = response.json()["choices"][0]["message"]["content"]
    except httpx.HTTPStatusError as error:
        said = error.response.text[:300]
        raise _no_answer(name, task, f"HTTP {error.response.status_code}: {said}") from error
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _no_answer(name, task, str(error) or type(error).__name__) from error
    return answer if isinstance(answer, str) else ""


def _no_answer(name: str, task: _Task, why: str) -> EngineError:
    return EngineError(
        f"the engine that serves {name} gave no answer for example {task.example.id[:12]}: {why}",
        fix="read the engine's log under logs/ in the node's home, or judge without: --evaluators heldout_loss",
    )
