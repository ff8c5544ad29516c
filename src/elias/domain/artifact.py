"""Room 5. An artifact: a finished adapter under its own digest, and the receipt that says how it came to be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from elias.domain.label import Label
from elias_trainer.contract import Digest, Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    digest: Digest
    """Of the OpenSSF Model Signing manifest of its files; the same training gives the same digest."""
    run: str
    base_reference: str
    base_digest: Digest
    method: Method
    corpus: Digest
    label: Label
    created_at: datetime
    bytes: int
    receipt: Digest
    """Of the DSSE envelope that lies beside it."""
