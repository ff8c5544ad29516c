"""Takes away what `elias aws setup` made. Nothing goes while a job runs, or while the only copy of a run lies in S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from elias.adapters.backends.sagemaker import policies
from elias.adapters.backends.sagemaker.client import Clients, aws_errors
from elias.adapters.backends.sagemaker.names import key_name
from elias.adapters.backends.sagemaker.policies import Place
from elias.adapters.backends.sagemaker.setup import KEY_WAITS_DAYS, UNMADE_KEY, Setup, absent, caller_arn
from elias.adapters.backends.sagemaker.sweep import Sweep
from elias.errors import Refused


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    what: str
    """Such as `role elias-training-us-east-1`."""
    detail: str
    """What goes with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Thing:
    removal: Removal
    remove: Callable[[], object]


class Teardown:
    """Of one account and region, for all nodes that use it."""

    def __init__(self, clients: Clients, is_home: Callable[[str, str], bool]) -> None:
        """`is_home` says of a node's name and a run whether all of the run has come home."""
        self._clients = clients
        self._is_home = is_home
        self._kms, self._s3, self._iam = clients.get("kms"), clients.get("s3"), clients.get("iam")

    def look(self) -> Iterator[Removal]:
        """What is there and would go."""
        return (thing.removal for thing in self._things())

    def obstacles(self) -> list[str]:
        """Why it had better stay: jobs that run, runs that are in S3 alone."""
        sweep = Sweep(self._clients, node=None)
        jobs = [f"the job {job.name} runs" for job in sweep.jobs()]
        runs = [run for run in sweep.runs() if not self._is_home(run.node, run.run)]
        return jobs + [f"the run {run.run} of node {run.node} is not at home here" for run in runs]

    def apply(self, *, force: bool) -> Iterator[Removal]:
        """One thing after the other; safe to repeat. Raises Refused; `force` passes over runs, never over jobs."""
        obstacles = self.obstacles()
        jobs = [why for why in obstacles if why.endswith(" runs")]
        if jobs:
            raise Refused("; ".join(jobs), fix="wait for its end, or: elias aws sweep --stop all", kept="everything")
        if obstacles and not force:
            raise Refused(
                "; ".join(obstacles[:5]) + (f" and {len(obstacles) - 5} more" if len(obstacles) > 5 else ""),
                fix="bring them home on their own node, or give them up: elias aws teardown --apply --force",
                kept="everything",
            )
        for thing in self._things():
            with aws_errors(f"removing {thing.removal.what}"):
                thing.remove()
            yield thing.removal

    def _things(self) -> Iterator[_Thing]:
        place = Setup(self._clients).place()
        with aws_errors("looking at what is there"):
            found = [*self._rights(place), *self._bucket(place), *self._key(place)]
        yield from found

    def _rights(self, place: Place) -> Iterator[_Thing]:
        iam, arn = self._iam, caller_arn(place)
        if absent(iam.get_policy, PolicyArn=arn) is not None:
            removal = Removal(what=f"policy {arn.rpartition('/')[2]}", detail="and where it is attached")
            yield _Thing(removal=removal, remove=lambda: self._remove_policy(arn))
        if absent(iam.get_role, RoleName=place.role) is not None:
            removal = Removal(what=f"role {place.role}", detail="jobs can no longer be started with it")
            yield _Thing(removal=removal, remove=lambda: self._remove_role(place.role))

    def _bucket(self, place: Place) -> Iterator[_Thing]:
        if absent(self._s3.head_bucket, Bucket=place.bucket) is not None:
            removal = Removal(what=f"bucket {place.bucket}", detail="all files in it, in all their versions")
            yield _Thing(removal=removal, remove=lambda: self._remove_bucket(place.bucket))

    def _key(self, place: Place) -> Iterator[_Thing]:
        if not place.key_arn.endswith(UNMADE_KEY):
            detail = f"scheduled: for {KEY_WAITS_DAYS} days it can be had back (aws kms cancel-key-deletion)"
            removal = Removal(what=f"key {key_name(self._clients.settings.kms_key)}", detail=detail)
            yield _Thing(removal=removal, remove=lambda: self._remove_key(place.key_arn))

    def _remove_policy(self, arn: str) -> None:
        used = self._iam.list_entities_for_policy(PolicyArn=arn)
        for user in used["PolicyUsers"]:
            self._iam.detach_user_policy(UserName=user["UserName"], PolicyArn=arn)
        for group in used["PolicyGroups"]:
            self._iam.detach_group_policy(GroupName=group["GroupName"], PolicyArn=arn)
        for role in used["PolicyRoles"]:
            self._iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=arn)
        for version in self._iam.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:
                self._iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        self._iam.delete_policy(PolicyArn=arn)

    def _remove_role(self, role: str) -> None:
        """A role of somebody else's that the settings name has other policies, and AWS then refuses."""
        if absent(self._iam.get_role_policy, RoleName=role, PolicyName=policies.ROLE_POLICY) is not None:
            self._iam.delete_role_policy(RoleName=role, PolicyName=policies.ROLE_POLICY)
        self._iam.delete_role(RoleName=role)

    def _remove_bucket(self, name: str) -> None:
        s3 = self._s3
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=name):
            for upload in page.get("Uploads", []):
                s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            some = [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in found]
            if some:
                s3.delete_objects(Bucket=name, Delete={"Objects": some, "Quiet": True})
        s3.delete_bucket(Bucket=name)

    def _remove_key(self, arn: str) -> None:
        key = arn.rpartition("/")[2]
        for page in self._kms.get_paginator("list_aliases").paginate(KeyId=key):
            for alias in page["Aliases"]:
                self._kms.delete_alias(AliasName=alias["AliasName"])
        self._kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=KEY_WAITS_DAYS)
