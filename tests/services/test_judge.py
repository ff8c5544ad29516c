"""The judge over real stores; evaluators here are tables, the real ones have tests of their own."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from elias.adapters.stores.corpora import SqlCorpusStore
from elias.adapters.stores.database import open_database
from elias.adapters.stores.models import SqlModelStore
from elias.domain.artifact import Artifact
from elias.domain.corpus import Corpus, Example, Message, example_from_line, example_line
from elias.domain.verdict import GateRule
from elias.errors import BadSignature, EngineError, InputError, NotFound
from elias.ports.evaluator import Contender, Evaluator, Measurement
from elias.ports.stores import CorpusStore, ModelStore
from elias.services.judge import Judge, Opened
from elias.testing.blobs import FolderBlobs
from elias.testing.nouns import NOON, a_corpus, a_digest, an_artifact
from elias_trainer.contract import BaseModel

CANDIDATE, OLD = an_artifact("candidate", minutes=2), an_artifact("old")


class AtNoon:
    def now(self) -> datetime:
        return NOON

    def sleep(self, span: timedelta) -> None:
        raise AssertionError("the judge does not wait")


class Table:
    """Nats a token by contender and example, from a function."""

    lower_is_better = True

    def __init__(self, nats: Callable[[str, Example], float], metric: str = "heldout_loss") -> None:
        self.nats, self.metric = nats, metric
        self.contenders: list[Contender] = []
        self.examples: list[str] = []
        self.uneven = False

    def measure(self, base: BaseModel, contenders: Sequence[Contender], heldout: Path) -> Sequence[Measurement]:
        self.contenders = list(contenders)
        examples = [example_from_line(line) for line in heldout.read_bytes().splitlines()]
        self.examples = [example.id for example in examples]
        return [
            Measurement(
                metric=self.metric,
                contender=contender.name,
                example=example.id,
                value=self.nats(contender.name, example) * 10,
                weight=10 + (self.uneven and contender.adapter is None),
                group={"source": example.source, "stage": str(example.stage)},
            )
            for contender in contenders
            for example in examples
        ]

    def notes(self) -> Mapping[str, str]:
        return {self.metric: f"{len(self.examples)} examples"}


@dataclasses.dataclass
class Bench:
    models: ModelStore
    corpora: CorpusStore
    blobs: FolderBlobs

    def corpus(self, of: str, heldout: Sequence[Example], train: Sequence[Example] = ()) -> Corpus:
        parts = {
            name: self.blobs.put(io.BytesIO(b"".join(map(example_line, part))))
            for name, part in (("heldout", heldout), ("train", train))
        }
        corpus = dataclasses.replace(a_corpus(of), **parts)
        self.corpora.add(corpus)
        return corpus

    def judge(self, *evaluators: Evaluator, rule: GateRule | None = None) -> Judge:
        return Judge(
            models=self.models,
            corpora=self.corpora,
            blobs=self.blobs,
            open_artifact=_opened,
            evaluators={f"table-{number}": evaluator for number, evaluator in enumerate(evaluators)},
            rule=rule or GateRule(),
            clock=AtNoon(),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    database = open_database(None, tmp_path / "elias.db")
    models = SqlModelStore(database, AtNoon())
    models.add_artifact(CANDIDATE)
    models.add_artifact(OLD)
    yield Bench(models=models, corpora=SqlCorpusStore(database), blobs=FolderBlobs(tmp_path / "blobs"))
    database.close()


def better(name: str, example: Example) -> float:
    """The candidate is better than the old one, and that than the base, by a little more or less in each example."""
    return {"candidate": 1.0, "in_service": 1.5, "base": 2.0}[name] + int(example.id) * {"candidate": 0.01}.get(name, 0)


def test_with_nothing_in_service_the_rival_is_the_base(bench: Bench) -> None:
    corpus = bench.corpus("corpus", _examples(12))
    table = Table(better)
    verdict = bench.judge(table).judge(CANDIDATE.digest)
    assert verdict.accepted and verdict.rival is None and verdict.corpus == corpus.digest
    assert [contender.name for contender in table.contenders] == ["candidate", "base"]
    assert verdict.reasons[0].startswith("passed: wanted better than the base in heldout_loss at 95%")
    assert {c.group: c.examples for c in verdict.comparisons} == {
        "all": 12,
        "source:code": 6,
        "source:git": 6,
        "stage:1": 8,
        "stage:2": 4,
    }
    assert verdict.details["heldout_loss"] == "12 examples" and verdict.details["judged_against"] == "base"


def test_the_model_in_service_is_the_rival_and_the_base_is_measured_too(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    bench.models.add_deployment("tiny", OLD.digest, "reference", "deploy")
    verdict = bench.judge(Table(better)).judge("latest")
    assert verdict.accepted and verdict.rival == OLD.digest
    overall = {c.rival: c for c in verdict.comparisons if c.group == "all"}
    assert overall["in_service"].rival_value == pytest.approx(1.5) and overall["base"].rival_value == pytest.approx(2)
    assert overall["in_service"].difference is not None and overall["in_service"].difference.high < 0


def test_a_refused_candidate_stays_with_its_reasons(bench: Bench) -> None:
    bench.corpus("corpus", _examples(24))
    worse_in_two = Table(lambda name, e: better(name, e) + (1.5 if name == "candidate" and e.stage == 2 else 0))
    verdict = bench.judge(worse_in_two).judge(CANDIDATE.digest)
    assert not verdict.accepted
    assert [reason.partition(";")[0] for reason in verdict.reasons if reason.startswith("refused")] == [
        "refused: wanted no worse in stage 2"
    ]
    assert list(bench.models.verdicts(CANDIDATE.digest)) == [verdict]
    assert bench.models.artifact(CANDIDATE.digest) == CANDIDATE


def test_too_few_examples_in_a_group_have_values_and_no_interval(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    verdict = bench.judge(Table(better)).judge(CANDIDATE.digest)
    few = next(c for c in verdict.comparisons if c.group == "stage:2")
    assert few.difference is None and few.candidate_value < few.rival_value
    assert any("stage 2" in reason and "too few to tell" in reason for reason in verdict.reasons)


def test_each_judging_is_a_verdict_of_its_own_rule(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    first = bench.judge(Table(better)).judge(CANDIDATE.digest)
    other = bench.judge(Table(better), rule=GateRule(level=0.9)).judge(CANDIDATE.digest)
    assert first.id != other.id and len(bench.models.verdicts()) == 2


def test_a_bare_base_in_service_is_measured_once(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    bench.models.add_deployment("tiny", None, "reference", "start")
    table = Table(better)
    assert bench.judge(table).judge(CANDIDATE.digest).rival is None
    assert [contender.name for contender in table.contenders] == ["candidate", "base"]


def test_a_candidate_in_service_already_is_judged_against_the_base(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    bench.models.add_deployment("tiny", CANDIDATE.digest, "reference", "deploy")
    assert bench.judge(Table(better)).judge(CANDIDATE.digest).details["judged_against"] == "base"


def test_a_rival_on_another_base_is_an_error_and_the_base_can_be_chosen(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    other = dataclasses.replace(an_artifact("other"), base_digest=a_digest("other base"), base_reference="starter")
    bench.models.add_artifact(other)
    bench.models.add_deployment("starter", other.digest, "llamacpp", "deploy")
    with pytest.raises(InputError, match="in service on starter") as caught:
        bench.judge(Table(better)).judge(CANDIDATE.digest)
    assert caught.value.fix.endswith("--against base")
    assert bench.judge(Table(better), rule=GateRule(rival="base")).judge(CANDIDATE.digest).accepted
    bench.models.add_deployment("starter", None, "llamacpp", "start")
    with pytest.raises(InputError, match="in service on starter"):
        bench.judge(Table(better)).judge(CANDIDATE.digest)


def test_examples_of_sessions_that_a_contender_was_trained_on_do_not_judge(bench: Bench) -> None:
    examples = _examples(12)
    bench.corpus("corpus", _examples(2), train=examples[:3])  # what the artifacts were trained on
    newer = bench.corpus("newer", examples)
    table = Table(better)
    verdict = bench.judge(table).judge(CANDIDATE.digest, newer.digest)
    assert table.examples == [example.id for example in examples[3:]]
    assert verdict.details["heldout"].startswith("9 of 12 held-out examples")
    assert "not_checked" not in verdict.details


def test_a_training_corpus_that_is_gone_is_said(bench: Bench) -> None:
    newer = bench.corpus("newer", _examples(12))
    verdict = bench.judge(Table(better)).judge(CANDIDATE.digest, newer.digest)
    assert CANDIDATE.digest.short in verdict.details["not_checked"]


def test_nothing_held_out_is_an_error_and_leaves_no_verdict(bench: Bench) -> None:
    bench.corpus("corpus", [])
    with pytest.raises(InputError, match="holds nothing out"):
        bench.judge(Table(better)).judge(CANDIDATE.digest)
    assert not bench.models.verdicts()


def test_an_unknown_candidate_or_corpus_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.judge().judge("0123456789ab")
    with pytest.raises(NotFound):
        bench.judge().judge(CANDIDATE.digest, "latest")


def test_a_tampered_candidate_is_not_judged(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))

    def tampered(artifact: Artifact) -> Opened:
        raise BadSignature("not signed by this node", fix="train it again")

    with pytest.raises(BadSignature):
        dataclasses.replace(bench.judge(Table(better)), open_artifact=tampered).judge(CANDIDATE.digest)


def test_an_evaluator_with_unequal_weights_is_not_believed(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    table = Table(better)
    table.uneven = True
    with pytest.raises(EngineError, match="weighs 10 for the candidate, 11 for base"):
        bench.judge(table).judge(CANDIDATE.digest)


def test_a_metric_that_nobody_measured_refuses(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    verdict = bench.judge(Table(better, metric="other")).judge(CANDIDATE.digest)
    assert not verdict.accepted and "heldout_loss was not measured" in verdict.reasons[0]


def _opened(artifact: Artifact) -> Opened:
    base = BaseModel(reference=artifact.base_reference, digest=artifact.base_digest)
    return Opened(base=base, adapter=Path("/artifacts") / artifact.digest.hex)


def _examples(count: int) -> list[Example]:
    """Half from each source, a third in stage 2."""
    return [
        Example(
            id=f"{number:02}",
            session=f"session-{number}",
            source=("code", "git")[number % 2],
            stage=2 if number % 3 == 0 else 1,
            messages=(Message(role="user", content="?"), Message(role="assistant", content="!")),
        )
        for number in range(count)
    ]


class Broken:
    lower_is_better = False

    def measure(self, base: BaseModel, contenders: Sequence[Contender], heldout: Path) -> Sequence[Measurement]:
        raise EngineError("the engine did not start\nits log", fix="read its log")


def test_an_evaluator_that_fails_is_left_out_with_its_reason_where_the_gate_does_not_need_it(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    verdict = bench.judge(Table(better), Broken()).judge("latest")
    assert verdict.accepted and verdict.details["table-1"] == "not measured: the engine did not start"


def test_an_evaluator_that_the_gate_needs_ends_the_judging_when_it_fails(bench: Bench) -> None:
    bench.corpus("corpus", _examples(12))
    other = Table(better, metric="other")
    with pytest.raises(EngineError, match="did not start"):
        bench.judge(Broken(), other).judge("latest")
    assert bench.models.verdicts() == []
