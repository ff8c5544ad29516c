"""How many instances of a type the account may train on at once: on demand and spot apart, per type, often none.

Quotas are listed by name once an hour, for their codes; the one that matters is read again by its code.
https://docs.aws.amazon.com/general/latest/gr/sagemaker.html
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.sagemaker.client import LoggedOut, aws_errors
from elias.errors import EliasError
from elias.units import Clock, instant, rfc3339
from elias_trainer.contract import write_whole

log = logging.getLogger("elias.sagemaker")

SERVICE = "sagemaker"
KEPT_FOR = timedelta(hours=1)
TRY_AGAIN = timedelta(minutes=10)
FRESH_FOR = timedelta(minutes=10)
"""What was listed or read so recently is not read again by its code."""
NAME = re.compile(r"(?P<type>ml\.\S+) for (?P<spot>spot )?training job usage")
KNOWN_CODES = {("ml.g5.2xlarge", True): "L-CAEE7DB7", ("ml.g5.2xlarge", False): "L-2D6DEB3C"}
"""To be named also where the list cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceQuota:
    type: str
    is_spot: bool
    code: str | None
    """None where the list could not be read."""
    value: int | None
    """Instances at once; None where nobody may say."""

    @property
    def name(self) -> str:
        """As AWS calls it."""
        return f"{self.type} for {'spot ' if self.is_spot else ''}training job usage"

    def request(self, region: str, value: int = 1) -> str:
        """The command that asks AWS for more, and the page that does the same."""
        if self.code is None:
            return f"ask for {self.name!r} at https://{region}.console.aws.amazon.com/servicequotas/home/services/sagemaker"
        return (
            f"aws service-quotas request-service-quota-increase --service-code {SERVICE} --quota-code {self.code} "
            f"--desired-value {value} --region {region} (or "
            f"https://{region}.console.aws.amazon.com/servicequotas/home/services/{SERVICE}/quotas/{self.code})"
        )


class Quotas:
    """Of one account and region."""

    def __init__(self, client: Callable[[], Any], region: str, home: Path, clock: Clock) -> None:
        """`client` makes a boto3 client of Service Quotas."""
        self._client = client
        self._file = home / f"quotas-{region}.json"
        self._clock = clock
        self._failed: tuple[datetime, str] | None = None
        self._read: dict[tuple[str, bool], tuple[datetime, InstanceQuota]] = {}

    def all(self) -> Mapping[tuple[str, bool], InstanceQuota]:
        """By type and whether it is spot, as listed within the last hour; empty where they cannot be listed.

        Raises LoggedOut.
        """
        kept = self._kept()
        if kept is not None and self._clock.now() - kept[0] <= KEPT_FOR:
            return kept[1]
        return self.refresh()

    def refresh(self) -> Mapping[tuple[str, bool], InstanceQuota]:
        """The same, listed now."""
        kept = self._kept()
        if self._failed and self._clock.now() - self._failed[0] < TRY_AGAIN:
            return kept[1] if kept else {}
        try:
            with aws_errors("listing service quotas"):
                found = {(q.type, q.is_spot): q for q in _listed(self._client())}
        except LoggedOut:
            raise
        except EliasError as error:
            self._failed = (self._clock.now(), error.what)
            log.warning("sagemaker.quotas_unread why=%s", error.what)
            return kept[1] if kept else {}
        self._keep(found)
        return found

    def now(self, type: str, *, is_spot: bool) -> InstanceQuota:
        """Read by its code, unless it was not long ago; as listed where that does not work, else unknown."""
        kept, known = self._kept(), self._read.get((type, is_spot))
        if known is not None and self._clock.now() - known[0] <= FRESH_FOR:
            return known[1]
        if kept is not None and self._clock.now() - kept[0] <= FRESH_FOR and (type, is_spot) in kept[1]:
            return kept[1][type, is_spot]
        listed = self.all().get((type, is_spot)) or InstanceQuota(
            type=type, is_spot=is_spot, code=KNOWN_CODES.get((type, is_spot)), value=None
        )
        if listed.code is None:
            return listed
        try:
            with aws_errors("reading a service quota"):
                quota = self._client().get_service_quota(ServiceCode=SERVICE, QuotaCode=listed.code)["Quota"]
        except LoggedOut:
            raise
        except EliasError as error:
            log.warning("sagemaker.quota_unread type=%s spot=%s why=%s", type, is_spot, error.what)
            return listed
        found = InstanceQuota(type=type, is_spot=is_spot, code=listed.code, value=int(quota["Value"]))
        self._read[type, is_spot] = (self._clock.now(), found)
        return found

    @property
    def note(self) -> str | None:
        """Why they are not known, where they are not."""
        return f"service quotas cannot be read: {self._failed[1]}" if self._failed and not self._kept() else None

    def _keep(self, found: Mapping[tuple[str, bool], InstanceQuota]) -> None:
        rows = [[q.type, q.is_spot, q.code, q.value] for q in found.values()]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        body = {"read_at": rfc3339(self._clock.now()), "quotas": rows}
        write_whole(self._file, json.dumps(body).encode())

    def _kept(self) -> tuple[datetime, Mapping[tuple[str, bool], InstanceQuota]] | None:
        try:
            raw = json.loads(self._file.read_bytes())
            rows = [InstanceQuota(type=t, is_spot=s, code=c, value=v) for t, s, c, v in raw["quotas"]]
            return instant(raw["read_at"]), {(q.type, q.is_spot): q for q in rows}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("sagemaker.quotas_broken file=%s why=%s", self._file, error)
            return None


def _listed(client: Any) -> Iterator[InstanceQuota]:
    for page in client.get_paginator("list_service_quotas").paginate(ServiceCode=SERVICE):
        for quota in page["Quotas"]:
            if match := NAME.fullmatch(quota["QuotaName"]):
                yield InstanceQuota(
                    type=match["type"],
                    is_spot=match["spot"] is not None,
                    code=quota["QuotaCode"],
                    value=int(quota["Value"]),
                )
