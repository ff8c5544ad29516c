"""What accelerators can do on paper, and what share of it fine-tuning reaches: a table, each row with its source.

Peaks are dense, with float32 accumulation, from the makers' data sheets and white papers. `share` is what matrix
products reach in a large micro-batch, all else counted apart (`domain.speed`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from elias_trainer.contract import Precision


class Basis(StrEnum):
    """How far a row can be trusted; each widens the estimate by its own factor."""

    MEASURED = "measured"
    """By this program's own trainer."""
    PUBLISHED = "published"
    """Fitted to other people's figures for other trainers."""
    ASSUMED = "assumed"
    """Nobody's figure was found for this class; its neighbours' share is taken."""

    @property
    def factor(self) -> float:
        return {Basis.MEASURED: 1.3, Basis.PUBLISHED: 1.6, Basis.ASSUMED: 2.5}[self]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    name: str
    pattern: str
    """Finds it in the names that drivers and places use, in lower case."""
    tflops: float
    """At half precision: bfloat16 where it has that."""
    tflops_fp32: float
    bandwidth: float
    """Bytes a second."""
    has_bf16: bool
    share: float
    basis: Basis
    source: str

    @property
    def half(self) -> Precision:
        return Precision.BF16 if self.has_bf16 else Precision.FP16

    def peak(self, precision: Precision) -> float:
        """TFLOPS of one."""
        return self.tflops_fp32 if precision is Precision.FP32 else self.tflops


def _row(
    name: str, pattern: str, numbers: tuple[float, float, float, float], basis: Basis, source: str, *, bf16: bool = True
) -> Accelerator:
    tflops, tflops_fp32, gigabytes_per_s, share = numbers
    return Accelerator(
        name=name,
        pattern=pattern,
        tflops=tflops,
        tflops_fp32=tflops_fp32,
        bandwidth=gigabytes_per_s * 1e9,
        has_bf16=bf16,
        share=share,
        basis=basis,
        source=source,
    )


_NEIGHBOUR = "assumed: no figure with its batch and lengths was found; a neighbour's share, lowered"
_WIKI = "https://github.com/hiyouga/LLaMA-Factory/wiki/Performance-comparison"
_QWEN = "https://github.com/QwenLM/Qwen/blob/main/README.md#profiling-of-memory-and-speed"
_FMS = "https://github.com/foundation-model-stack/fms-acceleration/tree/main/scripts/benchmarks/refs"
_LITGPT = "https://github.com/Lightning-AI/litgpt/blob/main/config_hub/finetune/README.md (times; tokens assumed)"
_TORCHTUNE = "https://github.com/pytorch/torchtune#memory-and-training-speed (compiled; lowered for a plain loop)"
_SAME_PROGRAM = (
    "one program's step times on A100, H100 and RTX PRO 6000 beside one another (11.5, 6.4 and 12.5 s for LoRA of "
    "Llama 3.1 8B): docs/planning-model.md"
)

ACCELERATORS = (
    _row("H200", r"h200|ml\.p5en?\.48", (989, 67, 4800, 0.34), Basis.ASSUMED, _NEIGHBOUR),
    _row("H100 PCIe", r"h100.?pcie", (756, 51, 2000, 0.36), Basis.ASSUMED, _NEIGHBOUR),
    _row("H100", r"h100|ml\.p5\.", (989, 67, 3350, 0.34), Basis.PUBLISHED, _SAME_PROGRAM),
    _row("A100", r"a100|ml\.p4", (312, 19.5, 1555, 0.6), Basis.PUBLISHED, f"{_WIKI} and {_QWEN} and {_FMS}"),
    _row("RTX PRO 6000", r"pro 6000|ml\.g7e\.", (500, 125, 1597, 0.34), Basis.PUBLISHED, _SAME_PROGRAM),
    _row("L40S", r"l40s|ml\.g6e\.", (362, 91.6, 864, 0.42), Basis.ASSUMED, _NEIGHBOUR),
    _row("L40", r"\bl40\b", (181, 90.5, 864, 0.8), Basis.PUBLISHED, _FMS),
    _row("L4", r"\bl4\b|ml\.g6\.", (121, 30.3, 300, 0.4), Basis.ASSUMED, _NEIGHBOUR),
    _row("A10G", r"a10g|ml\.g5\.", (70, 31.2, 600, 0.6), Basis.PUBLISHED, _LITGPT),
    _row("A10", r"\ba10\b", (125, 31.2, 600, 0.4), Basis.ASSUMED, _NEIGHBOUR),
    _row("A6000", r"rtx a6000", (155, 38.7, 768, 0.6), Basis.ASSUMED, _NEIGHBOUR),
    _row("T4", r"t4\b|ml\.g4dn\.", (65, 8.1, 320, 0.3), Basis.ASSUMED, _NEIGHBOUR, bf16=False),
    _row("V100", r"v100|ml\.p3", (125, 15.7, 900, 0.4), Basis.ASSUMED, _NEIGHBOUR, bf16=False),
    _row("P100", r"p100", (18.7, 9.3, 732, 0.5), Basis.ASSUMED, _NEIGHBOUR, bf16=False),
    _row("RTX 5090", r"rtx 5090", (209, 105, 1792, 0.6), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 4090", r"rtx 4090", (165, 82.6, 1008, 0.75), Basis.PUBLISHED, _TORCHTUNE),
    _row("RTX 4080", r"rtx 4080", (97, 48.7, 717, 0.65), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 4070", r"rtx 4070", (58, 29.1, 504, 0.65), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 4060 Ti", r"rtx 4060 ti", (44, 22.1, 288, 0.65), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 4060", r"rtx 4060", (30, 15.1, 272, 0.65), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 3090", r"rtx 3090", (71, 35.6, 936, 0.65), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 3080", r"rtx 3080", (59, 29.8, 760, 0.65), Basis.ASSUMED, _NEIGHBOUR),
    _row("RTX 3060", r"rtx 3060", (25, 12.7, 360, 0.65), Basis.ASSUMED, _NEIGHBOUR),
)
"""The first whose pattern is found counts: the more particular stand first."""

CPU_TFLOPS_A_CORE = 0.1
"""Two AVX2 units of 8 float32 lanes, multiply and add, at about 3 GHz."""
CPU = _row("CPU", r"\bcpu\b", (0.2, 0.2, 20, 0.43), Basis.MEASURED, "bench/speed.py")
"""Its peak is of two cores; whoever knows the number of cores says so."""
CPU_FACTOR = 1.8
"""In place of its basis's: cores differ in width and clock, and others work on them too."""
UNKNOWN = _row("unknown", r"", (40, 10, 300, 0.5), Basis.ASSUMED, "assumed: a small GPU of today")
UNKNOWN_FACTOR = 3.0
"""On top of that of an assumed row."""


@cache
def find(name: str) -> Accelerator:
    """The row for what a driver or a place calls it; `UNKNOWN` where there is none."""
    lowered = re.sub(r"[_-]", " ", name.lower())
    return next((row for row in (*ACCELERATORS, CPU) if re.search(row.pattern, lowered)), UNKNOWN)
