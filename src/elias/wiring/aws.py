"""From Config to what `elias aws` does: set-up, check, teardown and sweep of the account that SageMaker trains in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elias.config.edit import set_values
from elias.config.schema import Config
from elias.domain.run import RunState
from elias.errors import InputError, NotFound
from elias.ports.backend import HasHoldings
from elias.services.orphans import Look, Orphans
from elias.wiring.backends import Backends, backend_context
from elias.wiring.plugins import load_plugin
from elias.wiring.stores import open_stores

if TYPE_CHECKING:
    from elias.adapters.backends.sagemaker.client import Clients
    from elias.adapters.backends.sagemaker.setup import Finding
    from elias.adapters.backends.sagemaker.teardown import Removal

NAME = "sagemaker"
TABLE = f"backends.{NAME}"
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    account: str
    region: str
    bucket: str
    role: str
    kms_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class QuotaRow:
    """Of one instance type."""

    type: str
    on_demand: int | None
    """Instances at once; None where nobody may say."""
    on_demand_code: str | None
    spot: int | None
    spot_code: str | None
    hourly: str
    """What an hour costs on demand, and by whose word."""
    fix: str | None
    """How to ask for the first one, where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    account: Account
    parts: tuple[Finding, ...]
    quotas: tuple[QuotaRow, ...]
    notes: tuple[str, ...]
    """What could not be read live."""

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missing that this program makes; what may not be looked at is not counted against it."""
        return not any(part.state in ("missing", "differs") for part in self.parts)


def look(config: Config) -> tuple[Account, list[Finding], Mapping[str, Any]]:
    """The account, how each part is, and the documents that set-up puts in place. Makes nothing."""
    from elias.adapters.backends.sagemaker.setup import Setup

    with _clients(config) as clients:
        setup = Setup(clients)
        return _account(clients), list(setup.look()), setup.documents()


def apply(config: Config) -> Iterator[Finding]:
    """Make what is missing; each part as it was before. The names then stand in the configuration."""
    from elias.adapters.backends.sagemaker.setup import Setup

    with _clients(config) as clients:
        yield from Setup(clients).apply()
        account = _account(clients)
        values = {name: getattr(account, name) for name in ("region", "bucket", "role", "kms_key")}
        set_values(config.home, TABLE, values)


def check(config: Config) -> Checked:
    from elias.adapters.backends.sagemaker.instances import table
    from elias.adapters.backends.sagemaker.offers import sources_of
    from elias.adapters.backends.sagemaker.setup import Setup

    with _clients(config) as clients:
        prices, quotas, _ = sources_of(backend_context(config, NAME), clients)
        listed = quotas.refresh()
        types = [kind.name for kind in table().instances.values()]
        known, region = prices.all([name for name in types if table().instances[name].gpus]), clients.region
        rows = []
        for name in types:
            own, spot = listed.get((name, False)), listed.get((name, True))
            price = known.get(name)
            short = next((quota for quota in (spot, own) if quota is not None and quota.value == 0), None)
            rows.append(
                QuotaRow(
                    type=name,
                    on_demand=own.value if own else None,
                    on_demand_code=own.code if own else None,
                    spot=spot.value if spot else None,
                    spot_code=spot.code if spot else None,
                    hourly=f"{price.hourly} ({price.source})" if price else "unknown",
                    fix=short.request(region) if short else None,
                )
            )
        notes = tuple(note for note in (prices.note, quotas.note) if note)
        return Checked(account=_account(clients), parts=tuple(Setup(clients).look()), quotas=tuple(rows), notes=notes)


def removals(config: Config) -> tuple[list[Removal], list[str]]:
    """What would go, and why it had better stay."""
    from elias.adapters.backends.sagemaker.teardown import Teardown

    with _clients(config) as clients, _home_runs(config) as is_home:
        teardown = Teardown(clients, is_home)
        return list(teardown.look()), teardown.obstacles()


def tear_down(config: Config, *, force: bool) -> Iterator[Removal]:
    """Raises Refused while a job runs, or, without `force`, while a run is in S3 alone."""
    from elias.adapters.backends.sagemaker.teardown import Teardown

    with _clients(config) as clients, _home_runs(config) as is_home:
        yield from Teardown(clients, is_home).apply(force=force)


def sweep(config: Config) -> Look:
    """What is in the account in this node's name, and what of it no run owns. Stops nothing."""
    with open_stores(config) as stores:
        backends = Backends(config)
        clock = backend_context(config, NAME).clock
        (found,) = Orphans(lambda: backends(NAME), stores.runs, clock).look()
    return found


def stop(config: Config, names: Sequence[str]) -> list[str]:
    """End these jobs, or `all` orphaned ones. Raises NotFound for one that is not there in this node's name."""
    found, backend = sweep(config), Backends(config)(NAME)[NAME]
    if not isinstance(backend, HasHoldings):
        raise InputError(f"{NAME} has nothing to stop", fix="pip install 'elias-node[aws]'")
    orphaned = [orphan.holding.name for orphan in found.orphans if orphan.holding in found.jobs]
    wanted = orphaned if list(names) == [ALL] else list(names)
    there = {job.name for job in found.jobs}
    for name in wanted:
        if name not in there:
            raise NotFound(f"no job {name!r} of this node runs", fix="elias aws sweep lists them")
    for name in wanted:
        backend.stop(name)
    return wanted


@contextmanager
def _clients(config: Config) -> Iterator[Clients]:
    """Raises MissingPackage, ConfigError."""
    load_plugin("elias.backends", NAME)
    from elias.adapters.backends.sagemaker.client import Clients
    from elias.adapters.backends.sagemaker.settings import SageMakerSettings

    context = backend_context(config, NAME)
    clients = Clients(SageMakerSettings.read(context.settings), context.environment)
    try:
        yield clients
    finally:
        clients.close()


def _account(clients: Clients) -> Account:
    from elias.adapters.backends.sagemaker.names import key_name

    return Account(
        account=clients.account(),
        region=clients.region,
        bucket=clients.bucket(),
        role=clients.role(),
        kms_key=key_name(clients.settings.kms_key),
    )


@contextmanager
def _home_runs(config: Config) -> Iterator[Any]:
    """Whether a run of a node is home: this node's own, done or given up. All else may still be needed from S3."""
    from elias.adapters.backends.sagemaker.jobs import plain

    with open_stores(config) as stores:

        def is_home(node: str, run: str) -> bool:
            if node != plain(config.node.name):
                return False
            try:
                found = stores.runs.get(run)
            except NotFound:
                return False
            is_over = found.state in (RunState.DONE, RunState.CANCELLED)
            return is_over and all(segment.state.is_final for segment in stores.runs.segments(found.id))

        yield is_home
