"""Which instance types can take a job, for how much and how long, on demand and on spot; and why not the others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.instances import InstanceType, instance, table
from elias.adapters.backends.sagemaker.prices import LIST_REGION, Price, Prices
from elias.adapters.backends.sagemaker.quotas import InstanceQuota, Quotas
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.adapters.backends.sagemaker.spot import History, Risk, spot_hourly
from elias.adapters.backends.sagemaker.wheels import why_not_sealed
from elias.domain.footprint import KNOWN_SHAPES, Footprint, ModelShape, footprint
from elias.domain.interruption import Work, expected_hours
from elias.domain.offer import Need, Offer
from elias.domain.speed import Place, overheads, step_time
from elias.domain.tier import GIB
from elias.errors import ConfigError, InputError
from elias.ports.backend import BackendContext
from elias.units import FREE, Money
from elias_trainer.contract import Precision

START_DELAY = timedelta(minutes=5)
"""Assumed: from the order to the first line of the trainer, image and inputs fetched. Not billed before Downloading."""
CHECKPOINT_HOURS = 5 / 60
"""Between two checkpoints, for what an interruption costs: the default of training.checkpoint_every."""
BYTES_PER_TOKEN = 4
"""Assumed of a corpus that nobody has tokenized."""
USD_PER_GB_MONTH, USD_PER_GB_OUT = "0.023", "0.09"
"""S3 Standard and transfer to the internet, us-east-1, first tier, as AWS's pricing pages have had it since 2016."""
CUDA_12_IMAGE = "huggingface-pytorch-training:2.8.0-transformers4.56.2-gpu-py312-cu129-ubuntu22.04"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a job lies in the GPUs of one instance."""

    needs_bytes: int
    """Of one GPU."""
    is_split: bool
    """Its layers over all GPUs, which then work one after the other; else the whole of it in each."""
    why_not: str | None = None
    holds: bool | None = None
    """Whether the memory is enough; None for a base of unknown size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Of the whole run on one type; None of what nobody can say."""

    hours: float
    """Without interruptions, start included."""
    on_demand: Money
    spot: Money
    """With the interruptions that are to be expected."""
    spot_hours: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What there is to know of one type."""

    kind: InstanceType
    price: Price | None
    fit: Fit
    expected: Expected | None


class InstanceOffers:
    def __init__(
        self, name: str, region: str, settings: SageMakerSettings, sources: tuple[Prices, Quotas, History]
    ) -> None:
        """`name` is the backend's."""
        self._name = name
        self._region = region
        self._settings = settings
        self._prices, self._quotas, self._history = sources

    def offers(self, need: Need) -> Sequence[Offer]:
        """Two for each type, on demand and spot; refused ones with their reason. Raises ConfigError for a wrong type.

        Where the run or the settings name an instance, that type alone.
        """
        kinds = self._kinds(need)
        prices, risk = self._prices.all([kind.name for kind in kinds]), self._history.risk()
        rows = [self._row(kind, prices[kind.name], need, risk) for kind in kinds]
        return [self._offer(row, need, risk, is_spot=is_spot) for row in rows for is_spot in (False, True)]

    @property
    def notes(self) -> Iterator[str]:
        """What is not as live as it should be, in words."""
        yield from (note for note in (self._prices.note, self._quotas.note) if note)

    def _kinds(self, need: Need) -> list[InstanceType]:
        if need.instance:
            try:
                return [instance(need.instance)]
            except ConfigError as error:  # the run's own word, not this node's settings
                raise InputError(error.what, fix=error.fix) from error
        if self._settings.instance:
            return [instance(self._settings.instance)]
        return [kind for kind in table().instances.values() if kind.gpus]

    def _row(self, kind: InstanceType, price: Price | None, need: Need, risk: Risk) -> Row:
        shape, fit = shape_of(need), how_it_fits(kind, need)
        expected = None
        if shape is not None and price is not None and fit.why_not is None:
            expected = _expected(kind, shape, need, (price.hourly, risk, fit))
        return Row(kind=kind, price=price, fit=fit, expected=expected)

    def _offer(self, row: Row, need: Need, risk: Risk, *, is_spot: bool) -> Offer:
        kind, price = row.kind, row.price
        hourly = price.hourly if price else FREE
        refused = self._refused_before_quota(row, need, is_spot=is_spot)
        quota = self._quota(kind, is_spot=is_spot, read_again=refused is None)
        if refused is None and quota.value == 0:
            refused = f"the account's quota {quota.name!r} is 0 ({quota.code}): {quota.request(self._region)}"
        count = max(1, kind.gpus)
        spread = count if row.fit.is_split else 1
        # what AWS may bill after a job's limit comes on top of its hours, at the full price
        once = hourly.for_hours(self._settings.grace + self._settings.upload) + _storage(need)
        return Offer(
            backend=self._name,
            variant=f"{kind.name} spot" if is_spot else kind.name,
            accelerator=f"{kind.name} ({kind.gpu})" if kind.gpu else f"{kind.name} (cpu)",
            accelerator_count=count,
            memory_bytes=kind.gpu_memory_bytes if kind.gpus else kind.memory_bytes,
            tflops=kind.tflops / spread if kind.tflops else None,
            hourly=hourly,
            once=once,
            likely_hourly=spot_hourly(hourly) if is_spot else None,
            interruptions_per_hour=risk.interruptions_per_hour if is_spot else 0.0,
            fits=row.fit.holds,
            likely_span=_span(row.expected, is_spot=is_spot),
            likely_cost=_cost(row.expected, once, is_spot=is_spot),
            shortest=self._settings.shortest,
            longest=self._settings.longest,
            left=None,
            concurrency=quota.value if quota.value else 1,
            start_delay=START_DELAY,
            needs_encryption=True,
            seals_private=True,
            refused=refused,
        )

    def _refused_before_quota(self, row: Row, need: Need, *, is_spot: bool) -> str | None:
        if is_spot and self._settings.spot == "never":
            return 'spot is forbidden: under [backends.sagemaker] spot = "auto" allows it'
        if not is_spot and self._settings.spot == "always":
            return 'only spot is wanted: under [backends.sagemaker] spot = "auto" allows on demand too'
        if row.price is None:
            return self._no_price(row.kind)
        if why := row.fit.why_not or why_not_sealed(self._settings, need.label):
            return why
        if not row.kind.runs_cuda_13 and self._settings.image is None:
            return (
                f"AWS's image for CUDA 13 does not run on a {row.kind.gpu}: under [backends.sagemaker] set image to "
                f"one for CUDA 12, such as …/{CUDA_12_IMAGE}"
            )
        expected = row.expected
        if is_spot and self._settings.spot == "auto" and expected and expected.spot >= expected.on_demand:
            return (
                f"on demand is no dearer in expectation: spot {expected.spot} for {expected.spot_hours:.1f} h with "
                f"its interruptions, on demand {expected.on_demand} for {expected.hours:.1f} h"
            )
        return None

    def _no_price(self, kind: InstanceType) -> str:
        if self._prices.note is None:
            return f"the price list has no training on {kind.name} in {self._region}: another region, or another type"
        return (
            f"nobody knows its price in {self._region}, and nothing is begun without one: allow pricing:GetProducts "
            f"(elias aws setup), for the shipped table holds {table().region} alone"
        )

    def _quota(self, kind: InstanceType, *, is_spot: bool, read_again: bool) -> InstanceQuota:
        """As listed; one that says none, and alone stands in the way, is read anew: it may have been raised."""
        listed = self._quotas.all().get((kind.name, is_spot))
        if listed is None or (read_again and listed.value == 0):
            return self._quotas.now(kind.name, is_spot=is_spot)
        return listed


Sources = tuple[Prices, Quotas, History]


def instance_offers(context: BackendContext, clients: Clients) -> InstanceOffers:
    """Of the account that `clients` reach. Raises ConfigError where no region is set."""
    return InstanceOffers(context.name, clients.region, clients.settings, sources_of(context, clients))


def sources_of(context: BackendContext, clients: Clients) -> Sources:
    """Where prices, quotas and the risk of spot are known from. Raises ConfigError where no region is set."""
    region = clients.region
    ask = (lambda: clients.get("pricing", LIST_REGION)) if clients.settings.live_prices else None
    prices = Prices(ask, region, context.home, context.clock)
    quotas = Quotas(lambda: clients.get("service-quotas"), region, context.home, context.clock)
    return prices, quotas, History(context.home)


def shape_of(need: Need) -> ModelShape | None:
    """From the published table, or from the base's own folder; None where it is not at hand."""
    if known := KNOWN_SHAPES.get(need.base.reference):
        return known
    config = Path(need.base.reference) / "config.json"
    try:
        return ModelShape.from_config(json.loads(config.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a base that cannot be read here may still be read there


def how_it_fits(kind: InstanceType, need: Need) -> Fit:
    """Whole in each GPU, else its layers spread over them, else not; where the size is unknown it is let through."""
    shape, precision = shape_of(need), precision_on(kind, need)
    if precision is Precision.BF16 and not kind.has_bf16:
        what = kind.gpu or "CPU"
        return Fit(needs_bytes=0, is_split=False, why_not=f"a {what} has no bfloat16: --precision auto, or fp16")
    if shape is None:
        return Fit(needs_bytes=0, is_split=False)
    found, room = footprint(shape, need.recipe, precision), _room(kind)
    if found.total <= room:
        return Fit(needs_bytes=found.total, is_split=False, holds=True)
    spread = _spread(found, max(1, kind.gpus))
    if spread <= room:
        return Fit(needs_bytes=spread, is_split=True, holds=True)
    each = "" if kind.gpus <= 1 else f", and {spread / GIB:.1f} GiB on each with its layers spread over {kind.gpus}"
    why = (
        f"needs {found.total / GIB:.1f} GiB{each}; {kind.gpu or 'the machine'} has {room / GIB:.1f}, "
        f"{(spread - room) / GIB:.1f} too few: --method qlora, a smaller --batch-size, or --gradient-checkpointing"
    )
    return Fit(needs_bytes=spread, is_split=False, why_not=why, holds=False)


def precision_on(kind: InstanceType, need: Need) -> Precision:
    """What the trainer resolves `auto` to there."""
    if not kind.gpus:
        return Precision.FP32
    if need.recipe.precision is not Precision.AUTO:
        return need.recipe.precision
    return Precision.BF16 if kind.has_bf16 else Precision.FP16


def steps_of(need: Need) -> int:
    """Optimizer steps of the whole run: as asked for, else from the corpus's tokens in full sequences."""
    recipe = need.recipe
    if recipe.max_steps is not None:
        return recipe.max_steps
    tokens = need.corpus_tokens or need.corpus_bytes / BYTES_PER_TOKEN
    return max(
        1, math.ceil(recipe.epochs * tokens / (recipe.sequence_length * recipe.batch_size * recipe.accumulation))
    )


def _room(kind: InstanceType) -> int:
    return kind.gpu_memory_bytes if kind.gpus else kind.memory_bytes


def _spread(found: Footprint, gpus: int) -> int:
    """On one GPU when weights and what belongs to them are shared out; activations are counted whole."""
    shared = found.weights + found.gradients + found.optimizer
    return math.ceil(shared / gpus) + found.activations + found.runtime


def _expected(kind: InstanceType, shape: ModelShape, need: Need, terms: tuple[Money, Risk, Fit]) -> Expected:
    hourly, risk, fit = terms
    place = Place(
        accelerator=kind.name if kind.gpus else "cpu",
        count=1 if fit.is_split else max(1, kind.gpus),
        precision=precision_on(kind, need),
        tflops=kind.tflops,
    )
    beside = overheads(shape, need.recipe, place)
    work = Work(
        steps=step_time(shape, need.recipe, place).times(steps_of(need)).likely / 3600,
        start=beside.start_up.likely / 3600,
        between_checkpoints=CHECKPOINT_HOURS + beside.checkpoint.likely / 3600,
    )
    hours, spot_hours = expected_hours(work, 0), expected_hours(work, risk.interruptions_per_hour)
    return Expected(
        hours=hours,
        on_demand=hourly.for_hours(timedelta(hours=hours)),
        spot=spot_hourly(hourly).for_hours(timedelta(hours=spot_hours)),
        spot_hours=spot_hours,
    )


def _span(expected: Expected | None, *, is_spot: bool) -> timedelta | None:
    if expected is None:
        return None
    return timedelta(hours=expected.spot_hours if is_spot else expected.hours)


def _cost(expected: Expected | None, once: Money, *, is_spot: bool) -> Money | None:
    if expected is None:
        return None
    return (expected.spot if is_spot else expected.on_demand) + once


def _storage(need: Need) -> Money:
    """The corpus, and what is trained with its optimizer twice over (two checkpoints), for a month and once out."""
    shape = shape_of(need)
    trained = shape.adapter_parameters(need.recipe) if shape else 0
    gigabytes = (need.corpus_bytes + 2 * trained * 12) / 1e9
    kept, moved = Money.usd(USD_PER_GB_MONTH), Money.usd(USD_PER_GB_OUT)
    return Money(math.ceil(gigabytes * (kept.micro_usd + moved.micro_usd)))
