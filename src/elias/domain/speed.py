"""How long an optimizer step takes on a place: a model from the shape, the recipe and the accelerator. Pure.

    step = rounds x (max(products + memory, launches) + NF4 unpacking) + optimizer + exchange

A token costs 2 operations a weight forward (Kaplan et al. 2020, arXiv:2001.08361), 2 more for the gradient that passes
through frozen weights, and 2 more where weights are trained; checkpointing computes the forward pass again. It is a
model: `make bench` prints it beside published and measured figures, and docs/planning-model.md says what it leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from elias.domain.accelerators import CPU, CPU_FACTOR, UNKNOWN, UNKNOWN_FACTOR, Accelerator, find
from elias.domain.footprint import NF4_BYTES, ModelShape
from elias.domain.offer import Offer
from elias_trainer.contract import Method, Objective, Precision, Recipe

QUANTILE = 1.6449
"""Of the standard normal: `low` to `high` holds nine cases of ten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Seconds, log-normal: one case in twenty is below `low`, half are below `likely`, one in twenty above `high`."""

    low: float
    likely: float
    high: float

    @classmethod
    def around(cls, likely: float, factor: float) -> Self:
        """`factor` is how far `low` and `high` stand off, each on its side; 1 is certain."""
        return cls(low=likely / factor, likely=likely, high=likely * factor)

    @property
    def factor(self) -> float:
        return math.sqrt(self.high / self.low) if self.low > 0 else 1.0

    @property
    def sigma(self) -> float:
        """Of its logarithm."""
        return math.log(self.factor) / QUANTILE

    def times(self, count: float) -> Estimate:
        """Of `count` of these, which all err the same way."""
        return Estimate(low=self.low * count, likely=self.likely * count, high=self.high * count)

    def plus(self, other: Estimate) -> Estimate:
        """As if both erred the same way: never narrower than the truth."""
        return Estimate(low=self.low + other.low, likely=self.likely + other.likely, high=self.high + other.high)

    def quantile(self, share: float) -> float:
        """What it stays below with this probability, 0 < share < 1."""
        from statistics import NormalDist

        return self.likely * math.exp(self.sigma * NormalDist().inv_cdf(share))


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    accelerator: str
    """As its driver or its place calls it."""
    count: int = 1
    precision: Precision
    """Resolved: never `auto`."""
    tflops: float | None = None
    """Of one, dense, at `precision`; None takes the table's."""
    bandwidth: float | None = None
    """Bytes a second, of one's memory; None takes the table's."""
    download: float | None = None
    """Bytes a second at which the base has to be fetched first; None has it at hand."""

    @classmethod
    def of(cls, offer: Offer, recipe: Recipe, *, download: float | None = None) -> Place:
        card = find(offer.accelerator)
        return cls(
            accelerator=offer.accelerator,
            count=offer.accelerator_count,
            precision=precision_on(offer.accelerator, recipe),
            tflops=offer.tflops,
            download=download if card is not CPU else None,
        )

    @property
    def card(self) -> Accelerator:
        return find(self.accelerator)


def precision_on(accelerator: str, recipe: Recipe) -> Precision:
    """What the trainer resolves to there."""
    card = find(accelerator)
    if card is CPU:
        return Precision.FP32
    return card.half if recipe.precision is Precision.AUTO else recipe.precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """What a micro-batch computes, padding included."""

    count: float
    width: float
    """Tokens in each."""

    @property
    def tokens(self) -> float:
        return self.count * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class StepParts:
    """Seconds of one step, by what takes them."""

    products: float
    memory: float
    """Everything between the matrix products: norms, rotations, gates, residuals, the loss."""
    idle: float
    """Waiting for Python to launch kernels that are shorter than their launch."""
    unpacking: float
    optimizer: float
    exchange: float

    @property
    def total(self) -> float:
        return self.products + self.memory + self.idle + self.unpacking + self.optimizer + self.exchange


@dataclass(frozen=True, kw_only=True, slots=True)
class Overheads:
    start_up: Estimate
    """From the trainer's start to its first step: imports, fetching the base, loading it, the checkpoint."""
    checkpoint: Estimate
    """Writing one."""


def step_time(shape: ModelShape, recipe: Recipe, place: Place, sequences: Sequences | None = None) -> Estimate:
    """Of one optimizer step, all its micro-batches; full sequences unless told otherwise."""
    return Estimate.around(step_parts(shape, recipe, place, sequences).total, _factor(place))


def step_parts(shape: ModelShape, recipe: Recipe, place: Place, sequences: Sequences | None = None) -> StepParts:
    """The likely seconds of one step."""
    batch = sequences or Sequences(count=recipe.batch_size, width=recipe.sequence_length)
    rounds = math.ceil(recipe.accumulation / place.count)
    card, trained = place.card, _trained(shape, recipe)
    bandwidth = (place.bandwidth or card.bandwidth) * _BANDWIDTH_SHARE
    peak = (place.tflops or card.peak(place.precision)) * 1e12
    share = card.share * _filled(batch.tokens, _HALF_SPEED_TOKENS) * _filled(shape.hidden, _HALF_SPEED_WIDTH)
    products = flops(shape, recipe, batch) / (peak * share)
    memory = _moved(shape, recipe, place, batch) / bandwidth
    return StepParts(
        products=rounds * products,
        memory=rounds * memory,
        idle=rounds * max(0.0, _launching(shape, recipe, place) - products - memory),
        unpacking=rounds * _unpacked(shape, recipe) / (bandwidth * _UNPACKING_SHARE),
        optimizer=trained * _OPTIMIZER_BYTES / bandwidth,
        exchange=2 * trained * 4 / _EXCHANGE_BYTES_PER_S if place.count > 1 else 0.0,
    )


def flops(shape: ModelShape, recipe: Recipe, batch: Sequences) -> float:
    """Of one micro-batch's matrix products, those computed again included."""
    # A packed sequence needs a mask, with which the kernels do not skip the upper half of the scores.
    half = 1.0 if recipe.packing else 0.5
    scores = shape.layers * 4 * shape.heads * shape.per_head * batch.width * half
    layers, head = 2 * shape.linear_parameters, 2 * shape.vocabulary * shape.hidden
    adapter = 0 if recipe.method is Method.FULL else 2 * shape.adapter_parameters(recipe)
    backward = 2 if recipe.method is Method.FULL else 1
    again = layers + scores + adapter if recipe.gradient_checkpointing else 0
    token = (layers + head) * (1 + backward) + scores * 3 + adapter * 3 + again
    if recipe.objective is Objective.DPO:
        # Two answers a row, and both once more through the base alone.
        token = 2 * (token + layers + head + scores)
    return token * batch.tokens


def overheads(shape: ModelShape, recipe: Recipe, place: Place) -> Overheads:
    """Assumed rates throughout, and so wide: a process starts, reads the base, and writes what it trains."""
    stored = shape.parameters * 2
    fetching = stored / place.download if place.download else 0.0
    checkpoint = _trained(shape, recipe) * 12 / _WRITE_BYTES_PER_S
    loading = _IMPORTS_S + stored / _READ_BYTES_PER_S
    return Overheads(
        start_up=Estimate.around(loading + fetching + checkpoint, 2.5),
        checkpoint=Estimate.around(_CHECKPOINT_S + checkpoint, 2.5),
    )


_BANDWIDTH_SHARE = 0.75
"""Of a memory's peak that streaming kernels reach."""
_HALF_SPEED_TOKENS = 100
"""A micro-batch of so many tokens reaches half of the share: matrices too narrow to fill the units."""
_HALF_SPEED_WIDTH = 128
"""The same of a model's width; fitted to `tiny` and `starter` on a CPU."""
_OPTIMIZER_BYTES = 28
"""AdamW reads weight, gradient and two moments, and writes three, in float32."""
_EXCHANGE_BYTES_PER_S = 8e9
"""Assumed: all-reduce over PCIe."""
_LAUNCH_S = 20e-6
"""Of a kernel, from Python through transformers and PEFT; fitted to Qwen's figures for 256 tokens."""
_CPU_LAUNCH_S = 4e-6
_UNPACKING_SHARE = 0.4
"""Of what other kernels reach; fitted to the published difference between LoRA and QLoRA."""
_IMPORTS_S = 12.0
_READ_BYTES_PER_S = 300e6
_WRITE_BYTES_PER_S = 200e6
_CHECKPOINT_S = 0.2


def _factor(place: Place) -> float:
    card = place.card
    if card is CPU:
        return CPU_FACTOR
    known = card is not UNKNOWN or place.tflops is not None
    return card.basis.factor if known else card.basis.factor * UNKNOWN_FACTOR


def _filled(size: float, half: float) -> float:
    return size / (size + half)


def _trained(shape: ModelShape, recipe: Recipe) -> int:
    return shape.parameters if recipe.method is Method.FULL else shape.adapter_parameters(recipe)


def _passes(recipe: Recipe) -> float:
    """Forward passes' worth of everything that is not a matrix product; backward moves twice as much."""
    passes = 3.0 + (1.0 if recipe.gradient_checkpointing else 0.0)
    return 2 * (passes + 1) if recipe.objective is Objective.DPO else passes


def _moved(shape: ModelShape, recipe: Recipe, place: Place, batch: Sequences) -> float:
    """Bytes that norms, rotations, gates, residuals, adapters and the loss read and write."""
    width = 4 if place.precision is Precision.FP32 else 2
    adapters = 0 if recipe.method is Method.FULL else len(recipe.target_modules)
    token = shape.layers * (shape.hidden * (24 + 2 * adapters) + shape.intermediate * 8) * width
    return batch.tokens * (token * _passes(recipe) + shape.vocabulary * (width + 4) * 4)


def _launching(shape: ModelShape, recipe: Recipe, place: Place) -> float:
    """Seconds below which a micro-batch cannot go, however small."""
    adapters = 0 if recipe.method is Method.FULL else len(recipe.target_modules)
    launch = _CPU_LAUNCH_S if place.card is CPU else _LAUNCH_S
    return shape.layers * (25 + 5 * adapters) * _passes(recipe) * launch


def _unpacked(shape: ModelShape, recipe: Recipe) -> float:
    """Bytes of unpacking NF4 matrices to half precision: each pass over them anew."""
    if recipe.method is not Method.QLORA:
        return 0.0
    return shape.linear_parameters * (NF4_BYTES + 2 + 2) * (3 if recipe.gradient_checkpointing else 2)
