"""Room 5. A receipt: how an artifact came to be, as an in-toto statement (https://in-toto.io/Statement/v1).

Its subjects are the adapter's files, the manifest over them (`adapter`) and the model signature (`model.sig`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from elias.domain.dsse import IN_TOTO_STATEMENT, strict_json
from elias.domain.label import Label
from elias.errors import BadReceipt, InputError
from elias.units import FREE, Money, instant, rfc3339
from elias_trainer.contract import Digest, Recipe, canonical_json

PREDICATE_TYPE = "urn:elias:receipt:v1"
ADAPTER = "adapter"
MODEL_SIGNATURE = "model.sig"
_RETRAIN = "train the model again, or ask the node it came from for it again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One segment. What only the trainer knows is None where it never got to say it."""

    number: int
    backend: str
    outcome: str
    """The segment's state: `done`, `paused`, `failed` or `cancelled`."""
    start: Digest | None
    """The checkpoint it began with; None began from the base."""
    end: Digest | None
    start_step: int
    end_step: int | None
    job: Digest | None
    """Of its job.json."""
    trainer: Digest | None
    """Of the trainer's archive."""
    accelerator: str | None
    accelerator_count: int | None
    precision: str | None
    versions: Mapping[str, str]
    seconds: Mapping[str, float]
    """By phase."""
    tokens: int
    first_loss: float | None
    last_loss: float | None
    cost_micro_usd: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    run: str
    strategy: str
    issued_at: datetime
    node: str
    """The key id of the node that issued it."""
    files: Mapping[str, Digest]
    """Path below `adapter/` -> digest."""
    manifest: Digest
    """The artifact's id: see `manifest_digest`."""
    model_signature: Digest
    """Of model.sig."""
    bytes: int
    base_reference: str
    base_revision: str | None
    base_digest: Digest
    corpus: Digest
    label: Label
    recipe: Recipe
    segments: tuple[Link, ...]

    @property
    def cost(self) -> Money:
        return sum((Money(link.cost_micro_usd) for link in self.segments), FREE)

    @property
    def tokens(self) -> int:
        return sum(link.tokens for link in self.segments)

    @property
    def seconds(self) -> Mapping[str, float]:
        """By phase, all segments together."""
        total: Counter[str] = Counter()
        for link in self.segments:
            total.update(dict(link.seconds))
        return {phase: round(spent, 6) for phase, spent in sorted(total.items())}

    @property
    def losses(self) -> tuple[float | None, float | None]:
        """The first and the last that were reported."""
        first = next((link.first_loss for link in self.segments if link.first_loss is not None), None)
        last = next((link.last_loss for link in reversed(self.segments) if link.last_loss is not None), None)
        return first, last


def to_statement(receipt: Receipt) -> bytes:
    """In canonical JSON."""
    first_loss, last_loss = receipt.losses
    predicate = {
        "run": receipt.run,
        "strategy": receipt.strategy,
        "issued_at": rfc3339(receipt.issued_at),
        "node": receipt.node,
        "bytes": receipt.bytes,
        "base": {
            "reference": receipt.base_reference,
            "revision": receipt.base_revision,
            "digest": receipt.base_digest,
        },
        "corpus": receipt.corpus,
        "label": receipt.label,
        "recipe": dataclasses.asdict(receipt.recipe),
        "segments": [dataclasses.asdict(link) for link in receipt.segments],
        "totals": {
            "cost_micro_usd": receipt.cost.micro_usd,
            "tokens": receipt.tokens,
            "seconds": receipt.seconds,
            "first_loss": first_loss,
            "last_loss": last_loss,
        },
    }
    named = {f"{ADAPTER}/{path}": digest for path, digest in sorted(receipt.files.items())}
    named |= {ADAPTER: receipt.manifest, MODEL_SIGNATURE: receipt.model_signature}
    subject = [{"name": name, "digest": {"sha256": digest.hex}} for name, digest in named.items()]
    return canonical_json(
        {"_type": IN_TOTO_STATEMENT, "subject": subject, "predicateType": PREDICATE_TYPE, "predicate": predicate}
    )


def from_statement(data: bytes, where: str) -> Receipt:
    """The inverse of `to_statement`, and of nothing else; `where` names the file. Raises BadReceipt."""
    try:
        raw = strict_json(data)
        if raw["_type"] != IN_TOTO_STATEMENT or raw["predicateType"] != PREDICATE_TYPE:
            raise ValueError(f"it is a {raw['predicateType']!r}, not a {PREDICATE_TYPE!r}")
        receipt = _receipt(raw["subject"], raw["predicate"])
        is_same = to_statement(receipt) == data
    except (ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise BadReceipt(f"{where} is not a receipt: {error!s}", fix=_RETRAIN) from error
    if not is_same:
        raise BadReceipt(f"{where} says something that a receipt does not say, or says it otherwise", fix=_RETRAIN)
    return receipt


def _receipt(subject: Any, predicate: Any) -> Receipt:
    digests = {entry["name"]: Digest(f"sha256:{entry['digest']['sha256']}") for entry in subject}
    manifest, signature = digests.pop(ADAPTER), digests.pop(MODEL_SIGNATURE)
    recipe = dict(predicate["recipe"])
    recipe["target_modules"] = tuple(recipe["target_modules"])
    base = predicate["base"]
    return Receipt(
        run=predicate["run"],
        strategy=predicate["strategy"],
        issued_at=instant(predicate["issued_at"]),
        node=predicate["node"],
        files={name.removeprefix(f"{ADAPTER}/"): digest for name, digest in digests.items()},
        manifest=manifest,
        model_signature=signature,
        bytes=predicate["bytes"],
        base_reference=base["reference"],
        base_revision=base["revision"],
        base_digest=Digest(base["digest"]),
        corpus=Digest(predicate["corpus"]),
        label=Label(predicate["label"]),
        recipe=Recipe(**recipe),
        segments=tuple(_link(link) for link in predicate["segments"]),
    )


def _link(raw: Mapping[str, Any]) -> Link:
    digests = {name: raw[name] and Digest(raw[name]) for name in ("start", "end", "job", "trainer")}
    return Link(**{**raw, **digests})


def check_chain(receipt: Receipt, where: str) -> None:
    """Each segment began from the newest checkpoint of those before it, and the last one is done. Raises BadReceipt."""
    if not receipt.segments or receipt.segments[-1].outcome != "done":
        raise BadReceipt(f"{where}: its last segment is not done, so there is no finished adapter", fix=_RETRAIN)
    reached: tuple[int, Digest | None] = (0, None)
    for expected_number, link in enumerate(receipt.segments, start=1):
        if link.number != expected_number:
            raise BadReceipt(f"{where}: segment {expected_number} is missing from its chain", fix=_RETRAIN)
        if (link.start_step, link.start) != reached:
            raise BadReceipt(
                f"{where}: segment {link.number} began from {_place(link.start_step, link.start)},"
                f" but those before it had reached {_place(*reached)}",
                fix=_RETRAIN,
            )
        if link.end is not None and link.end_step is not None and (link.end_step > reached[0] or not reached[1]):
            reached = (link.end_step, link.end)


def _place(step: int, checkpoint: Digest | None) -> str:
    return f"step {step} ({checkpoint.short})" if checkpoint else "the base"
