"""The held-out loss over a real process. The score program here measures bytes; the real one is in tests/trainer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elias.adapters.evaluators.heldout_loss import HeldoutLoss
from elias.errors import DigestMismatch, EliasError, EngineError, InputError
from elias.ports.evaluator import Contender, EvaluatorBounds, EvaluatorContext
from elias.testing.engine_contract import is_running
from elias.testing.evaluator_suite import EvaluatorSuite, Trial, function_example, write_heldout
from elias.testing.waiting import wait_until
from elias_trainer.contract import BaseModel

Context = Callable[..., EvaluatorContext]
BASE = BaseModel(reference="tiny")
EXAMPLES = [
    function_example("a", 'def inc(x):\n    """More."""\n', "    return x + 1\n", stage=1),
    function_example("b", 'def neg(x):\n    """Less."""\n', "    return -x\n"),
]
BYTES = """
import argparse, json, pathlib
from elias_trainer.contract import ScoreJob, digest_file, from_json, tree_digest
parser = argparse.ArgumentParser()
for name in ("verb", "--job", "--out", "--cache"):
    parser.add_argument(name)
given = parser.parse_args()
folder = pathlib.Path(given.job).parent
job = from_json(ScoreJob, pathlib.Path(given.job).read_bytes())
assert given.verb == "score" and pathlib.Path(given.cache).is_dir() and job.sequence_length == 512
assert digest_file(folder / job.corpus.path) == job.corpus.digest
factors = {"base": 1.0}
for adapter in job.adapters:
    assert tree_digest(folder / adapter.path) == adapter.digest
    factors[adapter.path] = float((folder / adapter.path / "factor").read_text())
out = pathlib.Path(given.out)
out.mkdir()
with (out / "scores.jsonl").open("w") as lines:
    for line in (folder / job.corpus.path).open():
        example = json.loads(line)
        size = len(example["messages"][-1]["content"])
        scores = {name: factor * size for name, factor in factors.items()}
        print(json.dumps({"example": example["id"], "tokens": size, "nll": scores}), file=lines)
"""


@pytest.fixture
def trainer(tmp_path: Path) -> list[str]:
    (tmp_path / "bytes.py").write_text(BYTES)
    return [sys.executable, str(tmp_path / "bytes.py")]


@pytest.fixture
def field(tmp_path: Path) -> list[Contender]:
    for name, factor in (("new", "0.5"), ("old", "0.75")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "factor").write_text(factor)
    return [
        Contender(name="candidate", adapter=tmp_path / "new"),
        Contender(name="in_service", adapter=tmp_path / "old"),
        Contender(name="base", adapter=None),
    ]


def test_all_contenders_pay_for_the_same_tokens(
    context: Context, trainer: list[str], field: list[Contender], tmp_path: Path
) -> None:
    evaluator = HeldoutLoss(context(), trainer)
    found = evaluator.measure(BASE, field, write_heldout(tmp_path / "heldout.jsonl", EXAMPLES))
    per_token = {(m.contender, m.example): m.value / m.weight for m in found}
    assert per_token == {(c, e): f for e in "ab" for c, f in (("candidate", 0.5), ("in_service", 0.75), ("base", 1.0))}
    assert "2 of 2 held-out examples" in evaluator.notes()["heldout_loss"]
    assert list((tmp_path / "home" / "cache").iterdir()) == [tmp_path / "home" / "cache" / "bases"]


def test_of_many_examples_the_first_in_order_of_id_are_taken_and_it_says_so(
    context: Context, trainer: list[str], field: list[Contender], tmp_path: Path
) -> None:
    evaluator = HeldoutLoss(replace(context(), bounds=EvaluatorBounds(examples=1)), trainer)
    found = evaluator.measure(BASE, field, write_heldout(tmp_path / "heldout.jsonl", EXAMPLES[::-1]))
    assert {measurement.example for measurement in found} == {"a"}
    assert evaluator.notes()["heldout_loss"].startswith(
        "1 of 2 held-out examples (the first in order of id, at most 1)"
    )


def test_a_program_that_fails_is_an_error_with_its_last_words(
    context: Context, field: list[Contender], tmp_path: Path
) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('the base is not there')"]
    with pytest.raises(EngineError, match="it ended with 1\nthe base is not there"):
        HeldoutLoss(context(), failing).measure(BASE, field, write_heldout(tmp_path / "h", EXAMPLES))


@pytest.mark.parametrize(("code", "kind"), [(2, InputError), (4, DigestMismatch), (5, EngineError)])
def test_what_the_program_says_is_wrong_keeps_its_kind_and_fix(
    context: Context, field: list[Contender], tmp_path: Path, code: int, kind: type[EliasError]
) -> None:
    program = f"import sys; print('noise\\nerror: no base\\n  fix: get one', file=sys.stderr); sys.exit({code})"
    with pytest.raises(kind, match="measured: no base") as caught:
        HeldoutLoss(context(), [sys.executable, "-c", program]).measure(
            BASE, field, write_heldout(tmp_path / "h", EXAMPLES)
        )
    assert caught.value.fix == "get one"


@pytest.mark.parametrize(
    ("written", "said"), [("", "cannot be read"), ("{}", "left out something"), ("[", "cannot be read")]
)
def test_scores_that_are_not_whole_are_an_error(
    context: Context, field: list[Contender], tmp_path: Path, written: str, said: str
) -> None:
    program = "import pathlib, sys; out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); "
    program += f"out.mkdir(); text = {written!r}; text and (out / 'scores.jsonl').write_text(text)"
    with pytest.raises(EngineError, match=said):
        HeldoutLoss(context(), [sys.executable, "-c", program]).measure(
            BASE, field, write_heldout(tmp_path / "h", EXAMPLES)
        )


def test_a_broken_line_names_its_number(context: Context, field: list[Contender], tmp_path: Path) -> None:
    heldout = write_heldout(tmp_path / "h", EXAMPLES)
    heldout.write_bytes(heldout.read_bytes() + b"{broken\n")
    with pytest.raises(InputError, match="line 3"):
        HeldoutLoss(context()).measure(BASE, field, heldout)


def test_how_far_it_is_is_told(
    context: Context, field: list[Contender], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    event = '{"kind": "step", "contender": "base", "step": 3, "step_total": 9, "eta_s": 61.2}'
    program = f"print('noise'); print('ELIAS-EVENT ' + {event!r}); import sys; sys.exit(1)"
    monkeypatch.setattr("elias.adapters.evaluators.heldout_loss.TELL_EVERY_S", -1.0)
    evaluator = HeldoutLoss(replace(context(), tell=told.append), [sys.executable, "-c", program])
    with pytest.raises(EngineError, match="noise"):
        evaluator.measure(BASE, field, write_heldout(tmp_path / "h", EXAMPLES))
    assert told == ["heldout_loss: base, 3 of 9 batches, 0:01:01 left"]


JUDGE = """
import pathlib, sys
from elias.adapters.evaluators import heldout_loss
from elias.ports.evaluator import Contender, EvaluatorContext
from elias_trainer.contract import BaseModel
home = pathlib.Path(sys.argv[1])
context = EvaluatorContext(home=home, threads=1, sequence_length=512, engines={})
trainer = [*heldout_loss.TRAINER[:-1], "sleeper"]
trainer[1] = "-P"  # so that PYTHONPATH counts
heldout_loss.HeldoutLoss(context, trainer).measure(
    BaseModel(reference="tiny"), [Contender(name="base", adapter=None)], home / "h"
)
"""
SLEEPER = "import os, pathlib, time; pathlib.Path(os.environ['PID_FILE']).write_text(str(os.getpid())); time.sleep(600)"


def test_the_score_program_ends_when_the_judge_is_killed(tmp_path: Path) -> None:
    write_heldout(tmp_path / "h", EXAMPLES)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PID_FILE": str(tmp_path / "pid")}
    with subprocess.Popen([sys.executable, "-c", JUDGE, str(tmp_path)], env=environment) as judge:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        process = int((tmp_path / "pid").read_text())
        assert is_running(process)
        judge.kill()
    wait_until(lambda: not is_running(process))


class TestContract(EvaluatorSuite):
    @pytest.fixture
    def trial(self, context: Context, trainer: list[str], field: list[Contender], tmp_path: Path) -> Trial:
        heldout = write_heldout(tmp_path / "heldout.jsonl", EXAMPLES)
        return Trial(evaluator=HeldoutLoss(context(), trainer), base=BASE, contenders=field, heldout=heldout)
