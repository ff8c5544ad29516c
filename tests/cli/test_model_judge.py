"""`elias model judge` from the command line; the slow one trains `tiny` for a few steps and judges what came out."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from elias.adapters.sandbox import why_not
from elias.cli import main
from elias.config import load
from elias.domain.corpus import Corpus, Example, example_line
from elias.domain.label import Label
from elias.domain.run import Run, Segment, SegmentState
from elias.services.run_folder import RunFolder
from elias.testing.evaluator_suite import function_example
from elias.testing.nouns import NOON, a_digest
from elias.wiring.attest import attest, make_node
from elias.wiring.corpus import open_blobs
from elias.wiring.stores import open_stores
from elias_trainer.contract import BaseModel, Digest, Input, Job, Recipe

Judge = Callable[..., tuple[int, str, str]]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Runs the command in a home of its own; exit code, answer and progress."""
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    make_node(load())

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["model", "judge", *arguments])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def test_with_no_model_there_is_nothing_to_judge(judge: Judge) -> None:
    code, answer, said = judge()
    assert (code, answer) == (3, "") and "fix:" in said


def test_an_unknown_evaluator_is_named_with_those_there_are(judge: Judge) -> None:
    code, _, said = judge("--evaluators", "crystal_ball")
    assert code == 3 and "crystal_ball" in said and "heldout_loss" in said


def test_an_unknown_rival_is_refused_as_a_setting(judge: Judge) -> None:
    code, _, said = judge("--against", "everybody")
    assert code == 2 and "in_service" in said


@pytest.mark.slow
def test_a_model_trained_on_the_same_kind_of_code_is_accepted_and_then_not_better_than_itself(judge: Judge) -> None:
    digest = _trained_model()
    code, answer, said = judge("--json", "--evaluators", "heldout_loss")
    verdict = json.loads(answer)
    assert code == 0, answer + said
    assert verdict["candidate"] == digest and verdict["accepted"]
    assert {c["group"] for c in verdict["comparisons"]} == {"all", "source:code", "stage:1", "stage:2"}
    assert all(c["difference"]["high"] < 0 for c in verdict["comparisons"])
    assert "heldout_loss: candidate, base" in said
    code, table, _ = judge(digest[7:19], "--against", "base", "--evaluators", "doctests")
    assert code == 4 and "heldout_loss was not measured" in table and "is refused" in table
    if why_not() is None:
        assert "doctests_passed" in table
    with open_stores(load()) as stores:
        assert [found.accepted for found in stores.models.verdicts()] == [False, True]


def _trained_model() -> Digest:
    """Ten steps of `tiny` on functions that add; its artifact in the books of the home that is configured."""
    config, examples = load(), [_adder(number) for number in range(32)]
    base, recipe = BaseModel(reference="tiny"), Recipe(max_steps=10, learning_rate=1e-3, sequence_length=256)
    with open_stores(config) as stores:
        blobs = open_blobs(config)
        train = blobs.put(io.BytesIO(b"".join(map(example_line, examples[:16]))))
        heldout = blobs.put(io.BytesIO(b"".join(map(example_line, examples[16:]))))
        stores.corpora.add(_corpus(train, heldout))
        run = Run(
            id="run-1",
            created_at=NOON,
            strategy="local",
            base=base,
            recipe=recipe,
            corpus=a_digest("corpus"),
            label=Label.PRIVATE,
        )
        folder = RunFolder(config.home / "runs" / run.id)
        corpus = Input(path="corpus.jsonl", digest=train)
        job = Job(run=run.id, segment="run-1-0001", base=base, corpus=corpus, recipe=recipe)
        folder.prepare(1, job, {corpus.path: blobs.path(train)})
        stores.runs.add(run)
        _train(folder, config.home / "cache" / "bases")
        segment = Segment(run=run.id, number=1, backend="local", state=SegmentState.DONE)
        return attest(config, stores).admit(run, [segment], folder.outputs(1)).digest


def _train(folder: RunFolder, cache: Path) -> None:
    command = [sys.executable, "-I", "-m", "elias_trainer", "train", "--job", str(folder.inputs(1) / "job.json")]
    command += ["--out", str(folder.outputs(1)), "--cache", str(cache)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def _corpus(train: Digest, heldout: Digest) -> Corpus:
    return Corpus(
        digest=a_digest("corpus"),
        label=Label.PRIVATE,
        train=train,
        heldout=heldout,
        train_examples=16,
        heldout_examples=16,
        preference_pairs=0,
        sessions=32,
        by_source={"code": 32},
        built_at=NOON,
    )


def _adder(number: int) -> Example:
    docstring = f'"""Add {number}.\n\n    >>> add{number}(1)\n    {number + 1}\n    """'
    signature = f"def add{number}(x):\n    {docstring}\n"
    return function_example(f"{number:02}", signature, f"    return x + {number}\n", stage=1 + number % 2)
