"""What a SageMaker instance has, what it cost when somebody last looked, and where its container image lies.

`instances.json` is the shipped table: each row with its source and the day it was read. Its prices are us-east-1's and
only stand in while the live price list (`prices`) cannot be read. The images' registries and tags are those of the
SageMaker Python SDK (`image_uris`) and of aws/deep-learning-containers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from elias.domain.tier import GIB
from elias.errors import ConfigError
from elias.units import Money

USABLE_SHARE = 0.93
"""Of a card's nominal GiB, where nobody has measured: A10G, L4 and L40S show 0.93 to 0.94."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceType:
    name: str
    gpus: int
    """0 for a CPU machine."""
    gpu: str | None
    gpu_memory_bytes: int
    """Of one GPU, as far as a program can use it."""
    vcpus: int
    memory_bytes: int
    tflops: float | None
    """Dense, of one GPU, at half precision."""
    has_bf16: bool
    has_nvme: bool
    """Its disks are encrypted in hardware; a key of your own for the volume is refused by AWS."""
    runs_cuda_13: bool
    hourly: Money
    """On demand, in the table's region, on `read_on`."""
    source: str
    read_on: str | None
    """A day or a month; None where nobody noted it."""
    note: str | None

    @property
    def family(self) -> str:
        return self.name.split(".")[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    region: str
    """Whose prices the rows hold."""
    instances: Mapping[str, InstanceType]
    images: Mapping[str, str]
    """`gpu` and `cpu` -> repository and tag."""
    registries: Mapping[str, str]
    """Region -> the account that publishes AWS's images there."""
    usage_prefixes: Mapping[str, str]
    """Region -> what its usage types begin with in the price list."""


@functools.cache
def table() -> Table:
    raw = json.loads(files(__package__).joinpath("instances.json").read_text(encoding="utf-8"))
    rows = [_row(row) for row in raw["instances"]]
    images = raw["images"]
    return Table(
        region=raw["region"],
        instances={row.name: row for row in rows},
        images={"gpu": images["gpu"], "cpu": images["cpu"]},
        registries=images["registries"],
        usage_prefixes=raw["usage_prefixes"],
    )


def instance(name: str) -> InstanceType:
    """Raises ConfigError for a type that the table does not hold."""
    found = table().instances.get(name)
    if found is None:
        known = ", ".join(table().instances)
        raise ConfigError(f"nothing is known here of the instance type {name!r}", fix=f"use one of: {known}")
    return found


def training_image(region: str, kind: InstanceType) -> str:
    """AWS's own image for training there. Raises ConfigError where the region's registry is not known."""
    registry = table().registries.get(region)
    if registry is None:
        raise ConfigError(
            f"no registry of AWS's training images is known in {region}",
            fix='under [backends.sagemaker] set image = "<registry>/<repository>:<tag>", or another region',
        )
    suffix = ".cn" if region.startswith("cn-") else ""
    repository = table().images["gpu" if kind.gpus else "cpu"]
    return f"{registry}.dkr.ecr.{region}.amazonaws.com{suffix}/{repository}"


def _row(raw: Mapping[str, Any]) -> InstanceType:
    usable = raw["usable_gib"] or raw["gpu_memory_gb"] * USABLE_SHARE
    return InstanceType(
        name=raw["type"],
        gpus=raw["gpus"],
        gpu=raw["gpu"],
        gpu_memory_bytes=int(usable * GIB),
        vcpus=raw["vcpus"],
        memory_bytes=raw["memory_gb"] * GIB,
        tflops=raw["tflops"],
        has_bf16=raw["bf16"],
        has_nvme=raw["nvme"],
        runs_cuda_13=raw["cuda_13"],
        hourly=Money.usd(raw["usd_per_hour"]),
        source=raw["source"],
        read_on=raw["read_on"],
        note=raw["note"],
    )
