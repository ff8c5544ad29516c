"""What ELIAS's things in an AWS account are called, unless the settings say otherwise, and how they are tagged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

KEY_ALIAS = "alias/elias"
JOB_PREFIX = "elias-"
"""Every training job's name begins so: the caller's rights end there."""

NODE_TAG = "elias:node"
RUN_TAG = "elias:run"
SEGMENT_TAG = "elias:segment"
SETUP_TAGS: Mapping[str, str] = {"elias:made-by": "elias aws setup"}
"""On what is made once an account."""


def key_name(setting: str | None) -> str:
    """Id, ARN or alias of the key, by the setting `kms_key`; whether there is one is another question."""
    return setting or KEY_ALIAS


def bucket_name(account: str, region: str) -> str:
    return f"elias-{account}-{region}"


def role_name(region: str) -> str:
    """The jobs' execution role. Roles belong to the whole account, so the region is part of the name."""
    return f"elias-training-{region}"


def caller_policy_name(region: str) -> str:
    """The policy that lets a person or a node use what was set up, and nothing else."""
    return f"elias-caller-{region}"


def job_tags(node: str, run: str, segment: str) -> dict[str, str]:
    return {NODE_TAG: node, RUN_TAG: run, SEGMENT_TAG: segment}


def as_tags(tags: Mapping[str, str], key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """In the form that AWS's calls take; KMS alone calls them TagKey and TagValue."""
    return [{key: name, value: text} for name, text in sorted(tags.items())]


def from_tags(tags: Sequence[Mapping[str, str]], key: str = "Key", value: str = "Value") -> dict[str, str]:
    return {tag[key]: tag[value] for tag in tags}
