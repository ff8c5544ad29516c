"""What an hour of an instance costs: the live price list, kept for a day; else the shipped table, and it says so.

The list is asked for in us-east-1 (AWS answers in three regions only), a type at a time by its usage type, such as
`USE1-Train:ml.g5.xlarge`: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from elias.adapters.backends.sagemaker.client import LoggedOut, aws_errors
from elias.adapters.backends.sagemaker.instances import table
from elias.errors import EliasError
from elias.units import Clock, Money, instant, rfc3339
from elias_trainer.contract import write_whole

log = logging.getLogger("elias.sagemaker")

LIST_REGION = "us-east-1"
KEPT_FOR = timedelta(days=1)
TRY_AGAIN = timedelta(minutes=10)
"""After the list could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    hourly: Money
    """On demand."""
    source: str
    """Whose word it is, and of when."""
    is_live: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The price list of one region, as it was read once."""

    region: str
    read_at: datetime
    hourly: Mapping[str, Money | None]
    """None means that the region does not train on it."""


class Prices:
    """Of one region. Safe to use from several threads: the worst is that the list is read twice."""

    def __init__(self, client: Callable[[], Any] | None, region: str, home: Path, clock: Clock) -> None:
        """`client` makes a boto3 client of the price list; without one the list is never asked."""
        self._client = client
        self._region = region
        self._file = home / f"prices-{region}.json"
        self._clock = clock
        self._failed: tuple[datetime, str] | None = None

    def all(self, types: Iterable[str]) -> Mapping[str, Price | None]:
        """Of each type; None where the region has it not, or where nobody knows what it costs there.

        Raises LoggedOut.
        """
        types, reading = list(types), self._kept()
        if self._client is not None and self._is_stale(reading, types) and not self._has_just_failed():
            reading = self._read(types) or reading
        if reading is not None:
            source = f"AWS price list, read {rfc3339(reading.read_at)}"
            known = {name: reading.hourly.get(name) for name in types}
            return {n: Price(hourly=h, source=source, is_live=True) if h else None for n, h in known.items()}
        return {name: self._shipped(name) for name in types}

    @property
    def note(self) -> str | None:
        """Why these are not today's prices, where they are not."""
        reading = self._kept()
        if reading is not None and self._clock.now() - reading.read_at <= KEPT_FOR:
            return None
        why = self._failed[1] if self._failed else "live_prices is off" if self._client is None else "it was not asked"
        if reading is not None:
            return f"prices were read {rfc3339(reading.read_at)}; the price list cannot be read now: {why}"
        return f"prices are the shipped table's, of {table().region} and dated; the price list was not read: {why}"

    def _shipped(self, name: str) -> Price | None:
        row = table().instances.get(name)
        if row is None or self._region != table().region:
            return None
        when = row.read_on or "a day that was not noted"
        return Price(hourly=row.hourly, source=f"shipped table: {row.source}, {when}", is_live=False)

    def _is_stale(self, reading: Reading | None, types: list[str]) -> bool:
        if reading is None or self._clock.now() - reading.read_at > KEPT_FOR:
            return True
        return not set(types) <= set(reading.hourly)

    def _has_just_failed(self) -> bool:
        return self._failed is not None and self._clock.now() - self._failed[0] < TRY_AGAIN

    def _read(self, types: list[str]) -> Reading | None:
        """None, and the reason is kept, when any of them could not be asked for: half a list would hide the rest."""
        assert self._client is not None
        prefix = table().usage_prefixes.get(self._region)
        if prefix is None:
            self._failed = (self._clock.now(), f"how usage types of {self._region} begin is not known here")
            return None
        try:
            with aws_errors("reading the price list"):
                client = self._client()
                found = {name: _hourly(client, f"{prefix}-Train:{name}", self._region) for name in types}
        except LoggedOut:
            raise
        except EliasError as error:
            self._failed = (self._clock.now(), error.what)
            log.warning("sagemaker.prices_unread region=%s why=%s", self._region, error.what)
            return None
        if not any(found.values()):
            self._failed = (self._clock.now(), f"it holds no price of any of these types in {self._region}")
            return None
        self._failed = None
        reading = Reading(region=self._region, read_at=self._clock.now(), hourly=found)
        self._keep(reading)
        return reading

    def _keep(self, reading: Reading) -> None:
        hourly = {name: money.micro_usd if money else None for name, money in reading.hourly.items()}
        body = {"region": reading.region, "read_at": rfc3339(reading.read_at), "micro_usd_per_hour": hourly}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file, json.dumps(body, indent=1).encode())

    def _kept(self) -> Reading | None:
        try:
            raw = json.loads(self._file.read_bytes())
            micros = raw["micro_usd_per_hour"]
            hourly = {name: None if micro is None else Money(micro) for name, micro in micros.items()}
            return Reading(region=raw["region"], read_at=instant(raw["read_at"]), hourly=hourly)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, AttributeError) as error:
            log.warning("sagemaker.prices_broken file=%s why=%s", self._file, error)
            return None


def _hourly(client: Any, usage: str, region: str) -> Money | None:
    """The dearest of what the list says for this usage type, so that two lines never understate; None for none."""
    answer = client.get_products(
        ServiceCode="AmazonSageMaker",
        FormatVersion="aws_v1",
        Filters=[{"Type": "TERM_MATCH", "Field": "usagetype", "Value": usage}],
    )
    return max((price for text in answer["PriceList"] for price in _prices(json.loads(text), region)), default=None)


def _prices(product: Mapping[str, Any], region: str) -> Iterable[Money]:
    attributes = product["product"]["attributes"]
    if attributes.get("regionCode", region) != region:
        return
    for term in product["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = dimension["pricePerUnit"].get("USD")
            if dimension.get("unit", "Hrs").lower().startswith("h") and usd and Decimal(usd) > 0:
                yield Money.usd(usd)
