"""An emulated Cost Explorer: what ended jobs cost, by day and tag. Nothing else of an account is on this bill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from elias.testing.sagemaker_emulator.answers import CallError

Json = dict[str, Any]
PAGE = 50
"""Days in an answer."""


def cost_and_usage(body: Json, jobs: Iterable[Json], prices: Mapping[str, str]) -> Json:
    """Raises CallError for what is not emulated: other than daily, other than one tag as filter and as group."""
    wanted, group = body.get("Filter", {}).get("Tags"), body.get("GroupBy", [])
    is_plain = body["Granularity"] == "DAILY" and wanted and [g["Type"] for g in group] == ["TAG"]
    if not is_plain:
        raise CallError("ValidationException", "emulated: only daily costs, filtered and grouped by a tag", 501)
    totals: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for job in jobs:
        tags = {tag["Key"]: tag["Value"] for tag in job["Tags"]}
        if "BillableTimeInSeconds" in job and tags.get(wanted["Key"]) in wanted["Values"]:
            day = datetime.fromtimestamp(job["TrainingEndTime"], tz=UTC).date().isoformat()
            totals[day, tags.get(group[0]["Key"], "")] += cost_of_job(job, prices)
    days = list(_days(body["TimePeriod"]))
    first = int(body.get("NextPageToken") or 0)
    shown = [_period(day, totals, group[0]["Key"]) for day in days[first : first + PAGE]]
    more = {"NextPageToken": str(first + PAGE)} if first + PAGE < len(days) else {}
    return {"ResultsByTime": shown, "GroupDefinitions": group, "DimensionValueAttributes": []} | more


def cost_of_job(job: Json, prices: Mapping[str, str]) -> Decimal:
    """USD of one that has ended."""
    resources = job["ResourceConfig"]
    hourly = Decimal(prices[resources["InstanceType"]])
    return hourly * int(resources["InstanceCount"]) * int(job["BillableTimeInSeconds"]) / 3600


def _days(period: Json) -> Iterator[str]:
    """From `Start` to the day before `End`."""
    day, end = date.fromisoformat(period["Start"]), date.fromisoformat(period["End"])
    while day < end:
        yield day.isoformat()
        day += timedelta(days=1)


def _period(day: str, totals: Mapping[tuple[str, str], Decimal], tag: str) -> Json:
    end = (date.fromisoformat(day) + timedelta(days=1)).isoformat()
    groups = [
        {"Keys": [f"{tag}${value}"], "Metrics": {"UnblendedCost": {"Amount": f"{cost:.10f}", "Unit": "USD"}}}
        for (on, value), cost in sorted(totals.items())
        if on == day
    ]
    return {"TimePeriod": {"Start": day, "End": end}, "Total": {}, "Groups": groups, "Estimated": True}
