"""What lies and runs in the account under ELIAS's marks: jobs, runs' files, keys. Everything here may cost money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from elias.adapters.backends.sagemaker.client import DENIED, MISSING, Clients, aws_errors, error_code
from elias.adapters.backends.sagemaker.instances import table
from elias.adapters.backends.sagemaker.jobs import Jobs, plain
from elias.adapters.backends.sagemaker.names import (
    JOB_PREFIX,
    NODE_TAG,
    RUN_TAG,
    SEGMENT_TAG,
    SETUP_TAGS,
    from_tags,
    key_name,
)
from elias.domain.holding import Holding, HoldingKind
from elias.units import Money

KEY_MONTHLY = Money.usd(1)
"""A customer-managed key, by AWS KMS's price page."""
STORAGE_MONTHLY = Money.usd("0.023")
"""A gigabyte in S3 Standard, us-east-1, first tier."""
HOURS_A_MONTH = 730
LIVE = ("InProgress", "Stopping")
ARTIFACTS = "artifacts"
"""The folder beside the runs in which finished adapters stay, by their digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """A prefix in the bucket."""

    node: str
    run: str
    prefix: str


class Sweep:
    """Of one account, region and bucket. All raise LoggedOut, ConfigError or BackendError."""

    def __init__(self, clients: Clients, node: str | None) -> None:
        """`node` limits it to one node's things; None takes those of all."""
        self._clients = clients
        self._node = node

    def holdings(self) -> Sequence[Holding]:
        """Jobs first, then files, then keys."""
        return [*self.jobs(), *self._files(), *self._keys()]

    def jobs(self) -> Iterator[Holding]:
        """Those that have not ended."""
        for summary in self._summaries():
            tags = self._tags(summary["TrainingJobArn"])
            if NODE_TAG in tags and self._node in (None, tags[NODE_TAG]):
                yield self._job(summary, tags)

    def runs(self) -> Iterator[RunFiles]:
        """The runs that have files in the bucket; none where there is no bucket."""
        root = f"{self._clients.settings.prefix.strip('/')}/"
        nodes = [root + plain(self._node) + "/"] if self._node else self._folders(root)
        for node in nodes:
            for run in self._folders(node):
                name = run.removeprefix(node).rstrip("/")
                if name != ARTIFACTS:
                    yield RunFiles(node=node.removeprefix(root).rstrip("/"), run=name, prefix=run)

    def stop(self, job: str) -> None:
        """As a person would in the console: SIGTERM, a last checkpoint, an end. Safe to repeat."""
        Jobs(self._clients).stop(job)

    def _summaries(self) -> list[Mapping[str, Any]]:
        sagemaker = self._clients.get("sagemaker")
        with aws_errors("listing training jobs"):
            pages = [
                page
                for status in LIVE
                for page in sagemaker.get_paginator("list_training_jobs").paginate(
                    NameContains=JOB_PREFIX, StatusEquals=status, PaginationConfig={"PageSize": 100}
                )
            ]
        found = [summary for page in pages for summary in page["TrainingJobSummaries"]]
        by_name = {summary["TrainingJobName"]: summary for summary in found}  # one may go from one status to the other
        return [summary for name, summary in by_name.items() if name.startswith(JOB_PREFIX)]

    def _tags(self, arn: str) -> dict[str, str]:
        with aws_errors(f"reading the tags of {arn}"):
            pages = self._clients.get("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
            return from_tags([tag for page in pages for tag in page["Tags"]])

    def _job(self, summary: Mapping[str, Any], tags: Mapping[str, str]) -> Holding:
        name, described = summary["TrainingJobName"], Jobs(self._clients).find(summary["TrainingJobName"]) or {}
        kind = described.get("ResourceConfig", {}).get("InstanceType", "an instance")
        row = table().instances.get(kind)
        limits = described.get("StoppingCondition", {})
        longest = limits.get("MaxWaitTimeInSeconds") or limits.get("MaxRuntimeInSeconds")
        since: datetime = summary["CreationTime"]
        spot = " on spot" if described.get("EnableManagedSpotTraining") else ""
        return Holding(
            kind=HoldingKind.JOB,
            name=name,
            node=tags.get(NODE_TAG),
            run=tags.get(RUN_TAG),
            segment=tags.get(SEGMENT_TAG),
            since=since,
            ends_by=since + timedelta(seconds=longest) if longest else None,
            hourly=row.hourly if row else None,
            is_ending=summary["TrainingJobStatus"] == "Stopping",
            detail=f"{kind}{spot}, {described.get('SecondaryStatus', summary['TrainingJobStatus'])}",
        )

    def _files(self) -> Iterator[Holding]:
        for run in self.runs():
            count, size, oldest = self._measure(run.prefix)
            if count:
                yield Holding(
                    kind=HoldingKind.FILES,
                    name=f"s3://{self._clients.bucket()}/{run.prefix}",
                    node=run.node,
                    run=run.run,
                    since=oldest,
                    hourly=Money(-(-STORAGE_MONTHLY.micro_usd * size // (10**9 * HOURS_A_MONTH))),
                    detail=f"files and old versions: {count}, {size / 1e6:.1f} MB",
                )

    def _measure(self, prefix: str) -> tuple[int, int, datetime | None]:
        """Objects with all their versions, for all are billed: how many, bytes, the oldest's instant."""
        with aws_errors(f"measuring {prefix}"):
            paginator = self._clients.get("s3").get_paginator("list_object_versions")
            pages = paginator.paginate(Bucket=self._clients.bucket(), Prefix=prefix)
            found = [version for page in pages for version in page.get("Versions", [])]
        oldest = min((version["LastModified"] for version in found), default=None)
        return len(found), sum(int(version["Size"]) for version in found), oldest

    def _folders(self, prefix: str) -> list[str]:
        with aws_errors(f"listing {prefix}"):
            try:
                paginator = self._clients.get("s3").get_paginator("list_objects_v2")
                pages = list(paginator.paginate(Bucket=self._clients.bucket(), Prefix=prefix, Delimiter="/"))
            except ClientError as error:
                if error_code(error) == "NoSuchBucket":
                    return []
                raise
        return [str(entry["Prefix"]) for page in pages for entry in page.get("CommonPrefixes", [])]

    def _keys(self) -> Iterator[Holding]:
        """Keys with the set-up's tag or alias; the one in use belongs to the set-up, any other is left over."""
        kms = self._clients.get("kms")
        with aws_errors("listing keys"):
            pages = kms.get_paginator("list_aliases").paginate()
            aliases = {alias["TargetKeyId"]: alias["AliasName"] for page in pages for alias in page["Aliases"]
                       if "TargetKeyId" in alias and not alias["AliasName"].startswith("alias/aws/")}  # fmt: skip
        in_use = key_name(self._clients.settings.kms_key)
        for key, alias in sorted(aliases.items(), key=lambda pair: pair[1]):
            if self._key_tags(key).items() >= SETUP_TAGS.items():
                yield Holding(
                    kind=HoldingKind.KEY,
                    name=alias,
                    hourly=Money(-(-KEY_MONTHLY.micro_usd // HOURS_A_MONTH)),
                    is_set_up=in_use in (alias, key) or in_use.endswith(f"/{key}"),
                    detail=f"{key}, {KEY_MONTHLY} a month",
                )

    def _key_tags(self, key: str) -> dict[str, str]:
        """None of a key that is gone, or that these credentials may not look at: it is not one of ours."""
        with aws_errors(f"reading the tags of key {key}"):
            try:
                found = self._clients.get("kms").list_resource_tags(KeyId=key)["Tags"]
            except ClientError as error:
                if error_code(error) in (*DENIED, *MISSING):
                    return {}
                raise
        return from_tags(found, "TagKey", "TagValue")
