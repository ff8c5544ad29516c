"""What can be configured. Services never see this: wiring hands them the values they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.domain.label import Label
from elias.domain.verdict import GateRule
from elias.units import Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    name: str = "node"
    """Part of every remote name; two nodes that share a store need two names."""
    host: str = "127.0.0.1"
    port: int = 4141
    """Of the API and the gateway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    url: str | None = None
    """A PostgreSQL URL; None is `elias.db`, an SQLite file in the node's home."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    label: Label = Label.PRIVATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    base: str | None = None
    """None is DeepSeek-Coder 6.7B where there is a GPU for it, else `starter`."""
    strategy: str = "local"
    hybrid_without: tuple[str, ...] = ()
    """Places that `hybrid` leaves out, such as `local`; by their own names they are used all the same."""
    heldout_share: float = 0.1
    checkpoint_every: timedelta = timedelta(minutes=5)
    lease: timedelta = timedelta(seconds=30)
    allow_code: bool = False
    threads: int | None = None
    """CPU threads for a trainer; None is all that the process may use."""
    on_battery: bool = False
    """Whether a node trains on this machine while that runs on its battery."""
    keep_free_hours: bool = True
    """Whether runs with a budget leave hours of a weekly quota to those without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Caps on money, none where not set; days and months are UTC's."""

    run: Money | None = None
    """Of any run; the budget of those that bring none of their own."""
    day: Money | None = None
    month: Money | None = None
    account: Money | None = None
    """Of all that is ever spent from this store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """How much the built-in evaluators measure at most."""

    examples: int = 200
    functions: int = 12
    answer_tokens: int = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    engine: str | None = None
    """An `elias.engines` entry point; None takes the first that can serve the model."""
    threads: int | None = None
    canary: str = "Say hello."
    drain: timedelta = timedelta(seconds=30)
    silent_for: timedelta = timedelta(seconds=30)
    queue_bound: int = 2
    """Requests at the gateway; with more, training on this machine makes way."""
    latency_bound: timedelta = timedelta(seconds=10)
    """Until an answer begins; where one takes longer, training on this machine makes way."""
    calm_for: timedelta = timedelta(minutes=1)
    """How long both bounds are kept before training comes back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    home: Path
    profile: str | None = None
    """Whose presets the settings begin with, see `domain/profile.py`."""
    node: Node = field(default_factory=Node)
    store: Store = field(default_factory=Store)
    capture: Capture = field(default_factory=Capture)
    training: Training = field(default_factory=Training)
    budget: Budget = field(default_factory=Budget)
    gate: GateRule = field(default_factory=GateRule)
    judge: Judge = field(default_factory=Judge)
    evaluators: tuple[str, ...] = ("heldout_loss", "doctests")
    serving: Serving = field(default_factory=Serving)
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """A table for each backend, which alone knows what belongs in it."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted name -> `default`, the file and line, the environment variable, or the flag."""
