"""Hardware tiers of the federation: what a machine can be, by the seed's table."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    name: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    cores: int
    memory_bytes: int
    disk_bytes: int
    """Size of the disk that holds the node's home."""
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def gpu_memory_bytes(self) -> int:
        return sum(gpu.memory_bytes for gpu in self.gpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    name: str
    gpu_memory_gib: int
    """All cards together."""
    cores: int
    memory_gib: int
    disk_gib: int
    training: str


CLIENT = Tier(name="client (Tier 1)", gpu_memory_gib=0, cores=1, memory_gib=0, disk_gib=0, training="small models only")
TIERS = (
    Tier(name="minimum", gpu_memory_gib=8, cores=6, memory_gib=32, disk_gib=512, training="in the cloud only"),
    Tier(name="recommended", gpu_memory_gib=16, cores=8, memory_gib=64, disk_gib=1000, training="local and cloud"),
    Tier(name="high-end", gpu_memory_gib=32, cores=16, memory_gib=128, disk_gib=2000, training="all of it local"),
)
"""Tier 2, from the least to the most."""

SOLD_SHARE = 0.9
"""A card, bank or disk sold as N shows a little less to the system; nine tenths of the table's figure counts as met."""


def shortfalls(machine: Machine, tier: Tier) -> tuple[str, ...]:
    """What `machine` lacks for `tier`, a line each; empty when it has all of it."""
    rows = (
        ("GPU memory", machine.gpu_memory_bytes / GIB, tier.gpu_memory_gib, "GiB"),
        ("CPU cores", machine.cores, tier.cores, ""),
        ("memory", machine.memory_bytes / GIB, tier.memory_gib, "GiB"),
        ("disk", machine.disk_bytes / GIB, tier.disk_gib, "GiB"),
    )
    return tuple(
        f"{what}: {has:.0f} of {wants} {unit}".rstrip() for what, has, wants, unit in rows if has < wants * SOLD_SHARE
    )


def tier_of(machine: Machine) -> Tier:
    """The highest tier whose every line is met; `client` when none is."""
    return next((tier for tier in reversed(TIERS) if not shortfalls(machine, tier)), CLIENT)
