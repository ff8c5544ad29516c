"""What AWS's own bill says of this node's jobs: Cost Explorer, by the tags that every job carries.

The tags `elias:node` and `elias:segment` must be cost allocation tags of the account; AWS takes a day to begin with
them, and tells nothing of the time before. A request costs a cent, and is made only by `elias budget reconcile`.
https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_GetCostAndUsage.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from elias.adapters.backends.sagemaker.client import Clients, aws_errors
from elias.adapters.backends.sagemaker.names import NODE_TAG, SEGMENT_TAG
from elias.errors import ConfigError, Refused
from elias.ports.backend import BackendContext
from elias.units import FREE, Clock, Money

REGION = "us-east-1"
SETTLED_AFTER = timedelta(days=2)
"""AWS fills a day's costs in for a day and more: a segment that cost something later than this is not told yet."""


class Bills:
    """`HasBills`, as a part of the backend."""

    _context: BackendContext
    _clients: Clients
    _clock: Clock

    def billed(self, since: datetime, until: datetime) -> Mapping[str, Money]:
        """By segment key, for whole days in UTC. Raises LoggedOut, BackendError, or Refused where it may not look."""
        found: dict[str, Money] = {}
        unsettled: set[str] = set()
        edge = f"{min(until, self._clock.now() - SETTLED_AFTER):%Y-%m-%d}"
        for day, segment, cost in self._lines(since, until):
            found[segment] = found.get(segment, FREE) + cost
            if day >= edge:
                unsettled.add(segment)
        return {segment: cost for segment, cost in found.items() if segment not in unsettled and cost > FREE}

    def _lines(self, since: datetime, until: datetime) -> Iterator[tuple[str, str, Money]]:
        """Day, segment and cost of it."""
        for page in self._pages(since, until):
            for period in page["ResultsByTime"]:
                for group in period["Groups"]:
                    segment = group["Keys"][0].partition("$")[2]
                    cost = group["Metrics"]["UnblendedCost"]
                    if segment and cost["Unit"] == "USD":
                        yield period["TimePeriod"]["Start"], segment, Money.usd(cost["Amount"])

    def _pages(self, since: datetime, until: datetime) -> Iterator[Mapping[str, Any]]:
        ask: dict[str, Any] = {
            "TimePeriod": {"Start": f"{since:%Y-%m-%d}", "End": f"{until + timedelta(days=1):%Y-%m-%d}"},
            "Granularity": "DAILY",
            "Metrics": ["UnblendedCost"],
            "Filter": {"Tags": {"Key": NODE_TAG, "Values": [self._context.node]}},
            "GroupBy": [{"Type": "TAG", "Key": SEGMENT_TAG}],
        }
        while True:
            page = self._ask(ask)
            yield page
            if not page.get("NextPageToken"):
                return
            ask["NextPageToken"] = page["NextPageToken"]

    def _ask(self, ask: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            with aws_errors("reading the bill"):
                answer: Mapping[str, Any] = self._clients.get("ce", REGION).get_cost_and_usage(**ask)
        except ConfigError as error:
            raise Refused(
                error.what,
                fix="give these credentials ce:GetCostAndUsage, and turn Cost Explorer on: docs/sagemaker.md",
            ) from error
        return answer
