"""One of each noun, ready for a test to change a field of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from elias.domain.artifact import Artifact
from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.run import Run, Segment
from elias.domain.session import Event, Evidence, Session, session_id
from elias.domain.verdict import Comparison, Interval, Verdict
from elias_trainer.contract import BaseModel, Digest, Method, Recipe, digest_bytes

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def minutes_past_noon(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def a_digest(of: str) -> Digest:
    return digest_bytes(of.encode())


def a_session(text: str = "hello", *, source: str = "chat", evidence: tuple[Evidence, ...] = ()) -> Session:
    events = (Event(kind="message", role="user", text=text), Event(kind="message", role="assistant", text=text.upper()))
    return Session(
        id=session_id(source, events),
        source=source,
        title=text,
        taken_at=NOON,
        events=events,
        evidence=evidence,
        origin={"path": f"{text}.jsonl"},
    )


def a_corpus(of: str = "corpus", *, minutes: float = 0) -> Corpus:
    return Corpus(
        digest=a_digest(of),
        label=Label.PRIVATE,
        train=a_digest(of + " train"),
        heldout=a_digest(of + " heldout"),
        train_examples=9,
        heldout_examples=1,
        preference_pairs=0,
        sessions=10,
        by_source={"chat": 10},
        built_at=minutes_past_noon(minutes),
    )


def a_run(name: str = "run-1", *, minutes: float = 0) -> Run:
    return Run(
        id=name,
        created_at=minutes_past_noon(minutes),
        strategy="local",
        base=BaseModel(reference="tiny"),
        recipe=Recipe(),
        corpus=a_digest("corpus"),
        label=Label.PRIVATE,
    )


def a_segment(run: str = "run-1", number: int = 1) -> Segment:
    return Segment(run=run, number=number, backend="local", planned_for=timedelta(minutes=5))


def an_artifact(of: str = "model", *, minutes: float = 0, run: str = "run-1") -> Artifact:
    return Artifact(
        digest=a_digest(of),
        run=run,
        base_reference="tiny",
        base_digest=a_digest("base"),
        method=Method.LORA,
        corpus=a_digest("corpus"),
        label=Label.PRIVATE,
        created_at=minutes_past_noon(minutes),
        bytes=4096,
        receipt=a_digest(of + " receipt"),
    )


def a_verdict(name: str = "verdict-1", *, candidate: str = "model", minutes: float = 0) -> Verdict:
    comparison = Comparison(
        metric="heldout_loss",
        group="all",
        rival="base",
        candidate_value=1.25,
        rival_value=1.5,
        difference=Interval(low=-0.3, high=-0.2, level=0.95),
        examples=20,
    )
    return Verdict(
        id=name,
        candidate=a_digest(candidate),
        rival=None,
        corpus=a_digest("corpus"),
        accepted=True,
        reasons=("heldout_loss: lower than base",),
        comparisons=(comparison,),
        judged_at=minutes_past_noon(minutes),
    )
