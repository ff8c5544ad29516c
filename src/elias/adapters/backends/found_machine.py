"""A machine of somebody's as it described itself, as an offer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elias.domain.accelerators import CPU_TFLOPS_A_CORE
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.offer import Need, Offer
from elias.domain.tier import GIB
from elias.units import FREE
from elias_trainer.contract import Precision

Found = Mapping[str, Any]
"""`python`, `is_old`, `cores`, `memory`, `gpus` (each `name` and `memory`), `lacks` (packages)."""


def accelerator_of(found: Found) -> str:
    return str(found["gpus"][0]["name"]) if found["gpus"] else "cpu"


def offer_of(
    place: str, found: Found, refused: str | None, *, variant: str = "", most_gpus: int | None = None
) -> Offer:
    """Free, as long as it lasts; private data goes there sealed."""
    gpus = found["gpus"][:most_gpus]
    return Offer(
        backend=place,
        variant=variant,
        accelerator=accelerator_of(found),
        accelerator_count=len(gpus) or 1,
        memory_bytes=min((gpu["memory"] for gpu in gpus), default=found["memory"]),
        tflops=None if gpus else found["cores"] * CPU_TFLOPS_A_CORE,
        hourly=FREE,
        longest=None,
        left=None,
        needs_encryption=True,
        seals_private=True,
        refused=refused,
    )


def is_too_small(need: Need, found: Found, where: str) -> str | None:
    """By the memory model, in words."""
    shape = KNOWN_SHAPES.get(need.base.reference)
    if shape is None:
        return None
    needs = footprint(shape, need.recipe, Precision.BF16 if found["gpus"] else Precision.FP32).total
    has = max((gpu["memory"] for gpu in found["gpus"]), default=found["memory"])
    if needs <= has:
        return None
    return (
        f"needs about {needs / GIB:.0f} GiB of memory and {where} has {has / GIB:.0f}; "
        "a smaller --base, --method qlora, --batch-size or --sequence-length would fit"
    )
