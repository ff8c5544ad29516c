"""Bundles for backends under test: a small corpus, the fake trainer, and a job that says how it is to behave."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from elias.domain.corpus import Corpus
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.ports.backend import Bundle
from elias.ports.stores import BlobStore
from elias.testing.fake_trainer import build_fake_trainer, fake_base
from elias_trainer.contract import (
    BaseModel,
    Digest,
    Input,
    Job,
    Lease,
    Limits,
    Recipe,
    canonical_json,
    digest_bytes,
    digest_file,
    to_json,
    tree_digest,
    write_whole,
)

CORPUS = b'{"messages":[{"content":"what","role":"user"},{"content":"that","role":"assistant"}]}\n'
RECIPE = Recipe(max_steps=12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a bundle is to be like."""

    recipe: Recipe = RECIPE
    base: BaseModel = field(default_factory=fake_base)
    limits: Limits = field(default_factory=Limits)
    label: Label = Label.PUBLIC
    checkpoint: Path | None = None
    """A checkpoint's folder, to go on from."""
    lease_s: float | None = None


def make_bundle(folder: Path, key: str, wanted: Wanted | None = None) -> Bundle:
    """Lay out the bundle of segment `key` in `folder`."""
    wanted = wanted or Wanted()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "corpus.jsonl", CORPUS)
    build_fake_trainer(folder / "trainer.pyz")
    job = Job(
        run=key.rpartition("-")[0],
        segment=key,
        base=wanted.base,
        corpus=Input(path="corpus.jsonl", digest=digest_file(folder / "corpus.jsonl")),
        recipe=wanted.recipe,
        limits=wanted.limits,
        checkpoint=_checkpoint(folder, wanted.checkpoint),
        trainer=Digest(digest_file(folder / "trainer.pyz")),
        lease=Lease(path="lease", seconds=wanted.lease_s) if wanted.lease_s else None,
    )
    if job.lease:
        (folder / job.lease.path).touch()
    write_whole(folder / "job.json", to_json(job))
    return Bundle(job=job, folder=folder, label=wanted.label)


def small_corpus(blobs: BlobStore, label: Label, built_at: datetime) -> Corpus:
    """A corpus of one example, its file put among `blobs`; another one for each label."""
    train = blobs.put(io.BytesIO(CORPUS))
    return Corpus(
        digest=digest_bytes(label.encode()),
        label=label,
        train=train,
        heldout=train,
        train_examples=1,
        heldout_examples=0,
        preference_pairs=0,
        sessions=1,
        by_source={},
        built_at=built_at,
    )


def questions(count: int) -> bytes:
    """A corpus file that the real trainer reads: examples of one question and its answer, each."""
    lines = [
        {
            "id": f"example-{number}",
            "source": "code",
            "stage": None,
            "messages": [
                {"role": "user", "content": f"What is {number} and one?"},
                {"role": "assistant", "content": f"It is {number + 1}, and {number + 2} comes after it."},
            ],
            "weight_ppm": 1_000_000,
        }
        for number in range(count)
    ]
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def need_of(bundle: Bundle) -> Need:
    size = (bundle.folder / bundle.job.corpus.path).stat().st_size
    return Need(base=bundle.job.base, recipe=bundle.job.recipe, label=bundle.label, corpus_bytes=size)


def _checkpoint(folder: Path, source: Path | None) -> Input | None:
    if source is None:
        return None
    path = f"checkpoint/{source.name}"
    shutil.copytree(source, folder / path, dirs_exist_ok=True)
    return Input(path=path, digest=tree_digest(folder / path))
