"""The contract of an evaluator. Subclass `EvaluatorSuite`, give the fixture `trial`, and pytest does the rest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elias.domain.corpus import DocTest, Example, Message, example_from_line, example_line
from elias.domain.prompt import code_answer, code_prompt
from elias.ports.evaluator import Contender, Evaluator, HasNotes, Measurement
from elias_trainer.contract import BaseModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    evaluator: Evaluator
    base: BaseModel
    contenders: Sequence[Contender]
    """At least two."""
    heldout: Path
    """With examples of which at least one can be measured."""

    def run(self) -> Sequence[Measurement]:
        return self.evaluator.measure(self.base, self.contenders, self.heldout)


class EvaluatorSuite:
    """What the judge relies on."""

    def test_every_contender_is_measured_on_the_same_examples_by_the_same_weights(self, trial: Trial) -> None:
        weights: dict[str, dict[str, float]] = defaultdict(dict)
        for found in trial.run():
            assert found.example not in weights[found.contender], f"{found.example} was measured twice"
            weights[found.contender][found.example] = found.weight
        assert set(weights) == {contender.name for contender in trial.contenders}
        first, *others = weights.values()
        assert first and all(other == first for other in others)

    def test_values_are_finite_and_weights_above_zero(self, trial: Trial) -> None:
        assert all(math.isfinite(found.value) and found.weight > 0 for found in trial.run())

    def test_there_is_one_metric(self, trial: Trial) -> None:
        assert len({found.metric for found in trial.run()}) == 1

    def test_each_measurement_says_where_its_example_came_from(self, trial: Trial) -> None:
        lines = trial.heldout.read_bytes().splitlines()
        examples = {example.id: example for example in map(example_from_line, lines)}
        for found in trial.run():
            stage = examples[found.example].stage
            assert found.group["source"] == examples[found.example].source
            assert found.group.get("stage") == (None if stage is None else str(stage))

    def test_measuring_again_gives_the_same(self, trial: Trial) -> None:
        assert list(trial.run()) == list(trial.run())

    def test_nothing_held_out_gives_no_measurement(self, trial: Trial, tmp_path: Path) -> None:
        empty = tmp_path / "nothing.jsonl"
        empty.touch()
        assert list(trial.evaluator.measure(trial.base, trial.contenders, empty)) == []

    def test_notes_are_lines_for_people(self, trial: Trial) -> None:
        trial.run()
        if isinstance(trial.evaluator, HasNotes):
            assert all(line.strip() and "\n" not in line for line in trial.evaluator.notes().values())


def function_example(id: str, signature: str, body: str, before: str = "", stage: int | None = None) -> Example:
    indent = body[: len(body) - len(body.lstrip())]
    name = signature.split("def ")[1].split("(")[0]
    return Example(
        id=id,
        session=f"session-of-{id}",
        source="code",
        stage=stage,
        messages=(
            Message(role="user", content=code_prompt(signature)),
            Message(role="assistant", content=code_answer(body)),
        ),
        doctest=DocTest(function=name, before=before, signature=signature, indent=indent),
    )


def write_heldout(path: Path, examples: Iterable[Example]) -> Path:
    path.write_bytes(b"".join(example_line(example) for example in examples))
    return path
