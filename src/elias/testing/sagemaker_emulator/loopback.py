"""Loopback stands in for TLS: a bucket's policy against plain HTTP is kept and told, and does not lock everyone out.

moto looks at no condition of a bucket's policy: it takes `Deny unless TLS` for `Deny`.
"""

from __future__ import annotations

import json
from typing import Any

from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.s3.models import FakeBucket

PLAIN_HTTP = {"Bool": {"aws:SecureTransport": "false"}}


def count_loopback_as_tls() -> None:
    """In this process, for every bucket of moto's; safe to repeat."""
    FakeBucket.get_permission = _permission  # type: ignore[assignment,method-assign]


def _permission(bucket: FakeBucket, action: str, resource: str) -> PermissionResult:
    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    policy: dict[str, Any] = json.loads(bucket.policy)
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    kept = [s for s in statements if not (s["Effect"] == "Deny" and s.get("Condition") == PLAIN_HTTP)]
    if not kept:
        return PermissionResult.NEUTRAL
    return IAMPolicy(json.dumps({**policy, "Statement": kept})).is_action_permitted(action, resource)
