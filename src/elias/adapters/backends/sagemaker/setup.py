"""Makes, looks at and takes away what training needs once in an account: key, bucket, role and policies.

Every part is looked at before it is made, so that a second run makes nothing. What somebody changed is told, and put
back by `apply`.
"""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from elias.adapters.backends.sagemaker import policies
from elias.adapters.backends.sagemaker.client import DENIED, MISSING, Clients, aws_errors, error_code
from elias.adapters.backends.sagemaker.names import (
    KEY_ALIAS,
    SETUP_TAGS,
    as_tags,
    caller_policy_name,
    key_name,
)
from elias.adapters.backends.sagemaker.policies import Json, Place
from elias.errors import Refused

log = logging.getLogger("elias.sagemaker")

ABSENT = (
    *MISSING,
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchTagSet",
    "ServerSideEncryptionConfigurationNotFoundError",
)
APPLY = "elias aws setup --apply"
UNMADE_KEY = "the-key-that-apply-makes"
KEY_WAITS_DAYS = 30
"""Before a key that was given up is gone: the longest that AWS offers, since all it encrypted goes with it."""
MOST_VERSIONS = 5
"""Of a managed policy, by AWS's rules."""


class State(StrEnum):
    THERE = "there"
    MISSING = "missing"
    DIFFERS = "differs"
    UNKNOWN = "unknown"
    """These credentials may not look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    part: str
    state: State
    detail: str
    """What it is called, or what is wrong with it."""
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    name: str
    detail: str
    look: Callable[[], State]
    make: Callable[[], object]


class Setup:
    """Of one account and region."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self._kms, self._s3, self._iam = clients.get("kms"), clients.get("s3"), clients.get("iam")

    def place(self) -> Place:
        """With the key's ARN once there is one. Raises LoggedOut, ConfigError, BackendError."""
        region = self.clients.region
        place = Place(
            account=self.clients.account(),
            region=region,
            bucket=self.clients.bucket(),
            prefix=self.clients.settings.prefix.strip("/"),
            role=self.clients.role().rpartition("/")[2],
            key_arn="",
            partition=self.clients.role().split(":")[1],
        )
        return replace(place, key_arn=self._key_arn() or place.arn("kms", f"key/{UNMADE_KEY}"))

    def documents(self) -> dict[str, Json]:
        """All that would be put in place, as AWS takes it."""
        place = self.place()
        return {
            "key policy": policies.key_policy(place),
            "bucket policy": policies.bucket_policy(place),
            "bucket encryption": policies.encryption(place),
            "bucket lifecycle": policies.lifecycle(),
            "role trust": policies.trust_policy(place),
            "role policy": policies.role_policy(place),
            "caller policy": policies.caller_policy(place),
        }

    def look(self) -> Iterator[Finding]:
        """How each part is. Raises LoggedOut or BackendError; what may not be looked at is `unknown`."""
        for part in self._parts():
            state = self._state(part)
            fix = None if state is State.THERE else APPLY
            if state is State.UNKNOWN:
                fix = f"look with an administrator's credentials: AWS_PROFILE=admin {APPLY.removesuffix(' --apply')}"
            yield Finding(part=part.name, state=state, detail=part.detail, fix=fix)

    def apply(self) -> Iterator[Finding]:
        """Make what is missing and put right what differs, one part after the other; safe to repeat."""
        for part in self._parts():
            was = self._state(part)
            if was is not State.THERE:
                with aws_errors(f"making {part.name}"):
                    part.make()
                log.info("aws.made part=%s was=%s", part.name, was)
            yield Finding(part=part.name, state=was, detail=part.detail)

    def _state(self, part: Part) -> State:
        with aws_errors(f"looking at {part.name}"):
            try:
                return part.look()
            except ClientError as error:
                if error_code(error) in DENIED:
                    return State.UNKNOWN
                raise

    def _parts(self) -> Iterator[Part]:
        """In the order in which they need one another; the place is asked for anew, since the key is made first."""
        place = self.place()
        bucket = {"Bucket": place.bucket}
        alias = key_name(self.clients.settings.kms_key)
        yield Part(name="key", detail=alias, look=lambda: _there(self._key_arn()), make=self._make_key)
        place = self.place()
        yield Part(
            name="key rotation",
            detail="every year",
            look=lambda: (
                _there(self._kms.get_key_rotation_status(KeyId=place.key_arn)["KeyRotationEnabled"])
                if self._key_arn()
                else State.MISSING
            ),
            make=lambda: self._kms.enable_key_rotation(KeyId=place.key_arn),
        )
        yield Part(
            name="bucket",
            detail=place.bucket,
            look=lambda: _there(absent(self._s3.head_bucket, **bucket)),
            make=lambda: self._make_bucket(place),
        )
        yield from self._bucket_parts(place)
        yield from self._rights_parts(place)

    def _bucket_parts(self, place: Place) -> Iterator[Part]:
        s3, bucket = self._s3, {"Bucket": place.bucket}
        tls, encrypted, kept = policies.bucket_policy(place), policies.encryption(place), policies.lifecycle()
        blocked = policies.public_access_block()
        yield Part(
            name="bucket's public access",
            detail="all of it blocked",
            look=lambda: _same(absent(s3.get_public_access_block, **bucket), "PublicAccessBlockConfiguration", blocked),
            make=lambda: s3.put_public_access_block(**bucket, PublicAccessBlockConfiguration=blocked),
        )
        yield Part(
            name="bucket's versions",
            detail="kept",
            look=lambda: _same(absent(s3.get_bucket_versioning, **bucket), "Status", "Enabled"),
            make=lambda: s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"}),
        )
        yield Part(
            name="bucket's encryption",
            detail=f"SSE-KMS with {key_name(self.clients.settings.kms_key)}",
            look=lambda: _same(
                absent(s3.get_bucket_encryption, **bucket), "ServerSideEncryptionConfiguration", encrypted
            ),
            make=lambda: s3.put_bucket_encryption(**bucket, ServerSideEncryptionConfiguration=encrypted),
        )
        yield Part(
            name="bucket's policy",
            detail="TLS only",
            look=lambda: _same_document(absent(s3.get_bucket_policy, **bucket), "Policy", tls),
            make=lambda: s3.put_bucket_policy(**bucket, Policy=json.dumps(tls)),
        )
        yield Part(
            name="bucket's lifecycle",
            detail=f"old versions {policies.NONCURRENT_DAYS} days, unfinished uploads {policies.MULTIPART_DAYS}",
            look=lambda: _same(absent(s3.get_bucket_lifecycle_configuration, **bucket), "Rules", kept["Rules"]),
            make=lambda: s3.put_bucket_lifecycle_configuration(**bucket, LifecycleConfiguration=kept),
        )
        yield Part(
            name="bucket's tags",
            detail=", ".join(f"{name}={value}" for name, value in SETUP_TAGS.items()),
            look=lambda: _same(absent(s3.get_bucket_tagging, **bucket), "TagSet", as_tags(SETUP_TAGS)),
            make=lambda: s3.put_bucket_tagging(**bucket, Tagging={"TagSet": as_tags(SETUP_TAGS)}),
        )

    def _rights_parts(self, place: Place) -> Iterator[Part]:
        iam, role = self._iam, {"RoleName": place.role}
        trust, own = policies.trust_policy(place), policies.role_policy(place)
        named = {**role, "PolicyName": policies.ROLE_POLICY}
        yield Part(
            name="role",
            detail=place.role,
            look=lambda: _same_document((absent(iam.get_role, **role) or {}).get("Role"), _TRUST, trust),
            make=lambda: self._make_role(place),
        )
        yield Part(
            name="role's policy",
            detail=policies.ROLE_POLICY,
            look=lambda: _same_document(absent(iam.get_role_policy, **named), "PolicyDocument", own),
            make=lambda: iam.put_role_policy(**named, PolicyDocument=json.dumps(own)),
        )
        yield Part(
            name="caller's policy",
            detail=caller_policy_name(place.region),
            look=lambda: self._look_at_caller(place),
            make=lambda: self._make_caller(place),
        )

    # Making

    def _key_arn(self) -> str | None:
        """None where there is no such key, or none that can still be used."""
        with aws_errors("looking for the key"):
            found = absent(self._kms.describe_key, KeyId=key_name(self.clients.settings.kms_key))
        if found is None or found["KeyMetadata"]["KeyState"] in ("PendingDeletion", "Disabled"):
            return None
        return str(found["KeyMetadata"]["Arn"])

    def _make_key(self) -> None:
        alias = key_name(self.clients.settings.kms_key)
        if not alias.startswith("alias/"):
            raise Refused(
                f"there is no key {alias}, and only AWS chooses a key's id",
                fix=f'under [backends.sagemaker] remove kms_key, or write kms_key = "{KEY_ALIAS}"',
            )
        made = self._kms.create_key(
            Description=policies.KEY_DESCRIPTION,
            Policy=json.dumps(policies.key_policy(self.place())),
            Tags=as_tags(SETUP_TAGS, "TagKey", "TagValue"),
        )["KeyMetadata"]["KeyId"]
        self._kms.create_alias(AliasName=alias, TargetKeyId=made)

    def _make_bucket(self, place: Place) -> None:
        where = {} if place.region == "us-east-1" else {"LocationConstraint": place.region}
        more = {"CreateBucketConfiguration": where} if where else {}
        self._s3.create_bucket(Bucket=place.bucket, ObjectOwnership="BucketOwnerEnforced", **more)

    def _make_role(self, place: Place) -> None:
        trust = json.dumps(policies.trust_policy(place))
        if absent(self._iam.get_role, RoleName=place.role):
            self._iam.update_assume_role_policy(RoleName=place.role, PolicyDocument=trust)
            return
        self._iam.create_role(
            RoleName=place.role,
            AssumeRolePolicyDocument=trust,
            Description=policies.ROLE_DESCRIPTION,
            Tags=as_tags(SETUP_TAGS),
        )

    def _look_at_caller(self, place: Place) -> State:
        found = absent(self._iam.get_policy, PolicyArn=caller_arn(place))
        if found is None:
            return State.MISSING
        version = self._iam.get_policy_version(
            PolicyArn=caller_arn(place), VersionId=found["Policy"]["DefaultVersionId"]
        )
        return _same_document(version["PolicyVersion"], "Document", policies.caller_policy(place))

    def _make_caller(self, place: Place) -> None:
        document, arn = json.dumps(policies.caller_policy(place)), caller_arn(place)
        if absent(self._iam.get_policy, PolicyArn=arn) is None:
            self._iam.create_policy(
                PolicyName=caller_policy_name(place.region),
                PolicyDocument=document,
                Description=policies.CALLER_DESCRIPTION,
                Tags=as_tags(SETUP_TAGS),
            )
            return
        versions = self._iam.list_policy_versions(PolicyArn=arn)["Versions"]
        if len(versions) >= MOST_VERSIONS:
            oldest = min((v for v in versions if not v["IsDefaultVersion"]), key=lambda v: v["CreateDate"])
            self._iam.delete_policy_version(PolicyArn=arn, VersionId=oldest["VersionId"])
        self._iam.create_policy_version(PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)


def caller_arn(place: Place) -> str:
    return f"arn:{place.partition}:iam::{place.account}:policy/{caller_policy_name(place.region)}"


_TRUST = "AssumeRolePolicyDocument"


def _there(found: object) -> State:
    return State.THERE if found else State.MISSING


def absent(call: Callable[..., Any], **named: Any) -> Any:
    """The answer, or None where AWS says that there is no such thing."""
    try:
        return call(**named)
    except ClientError as error:
        if error_code(error) in ABSENT:
            return None
        raise


def _same(answer: Any, field: str, wanted: Any) -> State:
    if answer is None or field not in answer:
        return State.MISSING
    return State.THERE if _holds(answer[field], wanted) else State.DIFFERS


def _same_document(answer: Any, field: str, wanted: Json) -> State:
    """A policy comes back as an object, as JSON, or as JSON in percent signs."""
    if answer is None or field not in answer:
        return State.MISSING
    found = answer[field]
    if isinstance(found, str):
        found = json.loads(urllib.parse.unquote(found) if found.startswith("%") else found)
    return State.THERE if found == wanted else State.DIFFERS


def _holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there so; what AWS adds does not count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(name in found and _holds(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and all(any(_holds(f, w) for f in found) for w in wanted)
    return bool(found == wanted)
