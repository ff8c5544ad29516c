"""Room 6. Judges a candidate beside the model in service and the base, on held-out examples that neither has seen."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from elias.domain.artifact import Artifact
from elias.domain.corpus import Corpus
from elias.domain.gate import pass_gate
from elias.domain.statistics import Pair, means, paired_bootstrap
from elias.domain.verdict import Comparison, GateRule, Verdict
from elias.errors import EngineError, InputError, NotFound
from elias.ports.evaluator import Contender, Evaluator, HasNotes, Measurement
from elias.ports.stores import BlobStore, CorpusStore, ModelStore
from elias.units import Clock, rfc3339
from elias_trainer.contract import BaseModel, canonical_json, digest_bytes

CANDIDATE, IN_SERVICE, BASE = "candidate", "in_service", "base"


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="elias-judge-") as folder:
        yield Path(folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """An artifact whose signature, digests and structure were found right."""

    base: BaseModel
    adapter: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    base: BaseModel
    contenders: tuple[Contender, ...]
    served: Artifact | None
    """The artifact in service where it takes part; None where that is the bare base, the candidate, or nothing."""
    artifacts: tuple[Artifact, ...]

    @property
    def rivals(self) -> tuple[str, ...]:
        return tuple(contender.name for contender in self.contenders if contender.name != CANDIDATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    models: ModelStore
    corpora: CorpusStore
    blobs: BlobStore
    open_artifact: Callable[[Artifact], Opened]
    """Raises a VerificationError: what is not what it claims to be is not judged."""
    evaluators: Mapping[str, Evaluator]
    rule: GateRule
    clock: Clock
    tell: Callable[[str], None] = lambda line: None
    """Progress, a line at a time."""
    scratch: Callable[[], AbstractContextManager[Path]] = _scratch
    """A folder for what is taken out of a corpus, gone afterwards."""

    def judge(self, candidate: str = "latest", corpus: str = "latest") -> Verdict:
        """Measure, compare, decide, and keep the verdict, whichever it is.

        An evaluator that fails is left out with its reason, unless the gate needs what it measures.
        Raises NotFound, InputError, MissingPackage, a VerificationError or EngineError; then there is no verdict.
        """
        artifact, chosen = self.models.artifact(candidate), self.corpora.get(corpus)
        field = self._field(artifact)
        with self._unseen(chosen, field.artifacts) as (heldout, seen):
            comparisons, notes = self._measured(field, heldout)
        rival = IN_SERVICE if self.rule.rival == IN_SERVICE and IN_SERVICE in field.rivals else BASE
        accepted, reasons = pass_gate(self.rule, rival, comparisons)
        verdict = Verdict(
            id="",
            candidate=artifact.digest,
            rival=field.served.digest if field.served and rival == IN_SERVICE else None,
            corpus=chosen.digest,
            accepted=accepted,
            reasons=reasons,
            comparisons=comparisons,
            rule=self.rule,
            judged_at=self.clock.now(),
            details={"base": artifact.base_reference, "judged_against": rival, **seen, **notes},
        )
        verdict = replace(verdict, id=_id(verdict))
        self.models.add_verdict(verdict)
        return verdict

    def _field(self, artifact: Artifact) -> _Field:
        """Who takes part; one that is another by another name only once."""
        opened = self.open_artifact(artifact)
        contenders = [Contender(name=CANDIDATE, adapter=opened.adapter)]
        served = self._served(artifact)
        if served is not None:
            contenders.append(Contender(name=IN_SERVICE, adapter=self.open_artifact(served).adapter))
        contenders.append(Contender(name=BASE, adapter=None))
        return _Field(
            base=opened.base,
            contenders=tuple(contenders),
            served=served,
            artifacts=(artifact, served) if served else (artifact,),
        )

    def _served(self, candidate: Artifact) -> Artifact | None:
        """Raises InputError where it stands on another base: its tokens are not the candidate's tokens."""
        newest = next(iter(self.models.deployments()), None)
        if newest is None or newest.artifact == candidate.digest or self.rule.rival == BASE:
            return None
        if newest.artifact is None:
            if newest.base != candidate.base_reference:
                raise _other_base(candidate, newest.base)
            return None
        served = self.models.artifact(newest.artifact)
        if served.base_digest != candidate.base_digest:
            raise _other_base(candidate, served.base_reference)
        return served

    @contextmanager
    def _unseen(self, corpus: Corpus, artifacts: Sequence[Artifact]) -> Iterator[tuple[Path, Mapping[str, str]]]:
        """The held-out examples whose session no contender was trained on, and a note about the others."""
        heldout = self.blobs.path(corpus.heldout)
        trained, unknown = self._sessions_trained_on(corpus, artifacts)
        lines = heldout.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _session(line) not in trained]
        if not kept:
            many = f"; all {len(lines)} are of sessions that a contender was trained on" if lines else ""
            raise InputError(
                f"corpus {corpus.digest.short} holds nothing out that could judge{many}",
                fix="capture more sessions and build the corpus again, with a larger training.heldout_share",
            )
        notes = {
            "heldout": f"{len(kept)} of {len(lines)} held-out examples; no contender was trained on their sessions"
        }
        if unknown:
            notes["not_checked"] = "what " + ", ".join(unknown) + " was trained on is not here: it may have seen some"
        if len(kept) == len(lines):
            yield heldout, notes
            return
        with self.scratch() as folder:
            path = folder / "heldout.jsonl"
            path.write_bytes(b"".join(kept))
            yield path, notes

    def _sessions_trained_on(
        self, corpus: Corpus, artifacts: Sequence[Artifact]
    ) -> tuple[frozenset[str], tuple[str, ...]]:
        """Of other corpora; a corpus itself never holds a session on both sides. And the artifacts that hide it."""
        sessions: set[str] = set()
        unknown = []
        for artifact in artifacts:
            if artifact.corpus == corpus.digest:
                continue
            try:
                train = self.corpora.get(artifact.corpus).train
                with self.blobs.open(train) as lines:
                    sessions.update(_session(line) for line in lines)
            except NotFound:
                unknown.append(artifact.digest.short)
        return frozenset(sessions), tuple(unknown)

    def _measured(self, field: _Field, heldout: Path) -> tuple[tuple[Comparison, ...], dict[str, str]]:
        comparisons: list[Comparison] = []
        notes: dict[str, str] = {}
        failed: list[EngineError] = []
        for name, evaluator in self.evaluators.items():
            self.tell(f"{name}: {', '.join(contender.name for contender in field.contenders)}")
            try:
                measurements = evaluator.measure(field.base, field.contenders, heldout)
            except EngineError as error:
                failed.append(error)
                notes[name] = f"not measured: {_first_line(error.what)}"
                self.tell(f"{name}: {notes[name]}")
                continue
            for rival in field.rivals:
                comparisons += compare(measurements, rival, self.rule.level, lower_is_better=evaluator.lower_is_better)
            if isinstance(evaluator, HasNotes):
                notes.update(evaluator.notes())
        if failed and not any(comparison.metric == self.rule.metric for comparison in comparisons):
            raise failed[0]
        return tuple(comparisons), notes


def compare(
    measurements: Sequence[Measurement], rival: str, level: float, *, lower_is_better: bool
) -> Iterator[Comparison]:
    """Candidate beside `rival`, over all examples, by source and by stage. Raises EngineError for unequal weights."""
    found = {(m.metric, m.example, m.contender): m for m in measurements}
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for (metric, example, contender), mine in found.items():
        theirs = found.get((metric, example, rival))
        if contender != CANDIDATE or theirs is None:
            continue
        if theirs.weight != mine.weight:
            raise EngineError(
                f"{metric}: example {example[:12]} weighs {mine.weight} for the candidate, {theirs.weight} for {rival}",
                fix="an evaluator must measure all contenders on the same tokens or tests; report it to its author",
            )
        pair = Pair(candidate=mine.value, rival=theirs.value, weight=mine.weight)
        for group in ("all", *(f"{kind}:{name}" for kind, name in mine.group.items())):
            groups[metric, group].append(pair)
    for (metric, group), pairs in sorted(groups.items()):
        candidate_value, rival_value = means(pairs)
        yield Comparison(
            metric=metric,
            group=group,
            rival=rival,
            candidate_value=candidate_value,
            rival_value=rival_value,
            difference=paired_bootstrap(pairs, level),
            examples=len(pairs),
            lower_is_better=lower_is_better,
        )


def _session(line: bytes) -> str:
    """Raises InputError for a line that is none of a corpus."""
    try:
        return str(json.loads(line)["session"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("a line of the corpus cannot be read", fix="build it again: elias corpus build") from error


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _other_base(candidate: Artifact, served: str) -> InputError:
    return InputError(
        f"{candidate.digest.short} stands on {candidate.base_reference}, what is in service on {served}: "
        "loss a token cannot be compared across tokenizers",
        fix=f"judge it against its own base: elias model judge {candidate.digest.short} --against base",
    )


def _id(verdict: Verdict) -> str:
    """From who was judged, by what rule, on what and when."""
    rule = [verdict.rule.metric, verdict.rule.rival, verdict.rule.level, verdict.rule.no_worse_in_any_stage]
    judged = [verdict.candidate, verdict.rival, verdict.corpus, rule, rfc3339(verdict.judged_at)]
    return digest_bytes(canonical_json(judged)).hex[:16]
