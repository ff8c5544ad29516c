"""AWS's errors as ours, each with what helps; and jobs asked after no faster than AWS answers."""

from datetime import timedelta
from typing import Any

import pytest
from botocore import exceptions as boto

from elias.adapters.backends.sagemaker.client import (
    Clients,
    LoggedOut,
    NameTaken,
    NoCapacity,
    OutOfReach,
    aws_errors,
)
from elias.adapters.backends.sagemaker.jobs import first_difference, job_name
from elias.adapters.backends.sagemaker.outcome import of_reason
from elias.adapters.backends.sagemaker.pace import Pace
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.errors import BackendError, ConfigError, EliasError, NotFound, QuotaExhausted
from elias_trainer.contract import FailureKind

ANSWERS: list[tuple[str, str, int, type[EliasError], str]] = [
    ("ExpiredTokenException", "The security token is expired", 400, LoggedOut, "aws sso login"),
    ("InvalidClientTokenId", "The security token is invalid", 403, LoggedOut, "aws sso login"),
    ("AccessDeniedException", "User is not authorized", 400, ConfigError, "elias aws check"),
    ("403", "Forbidden", 403, ConfigError, "elias aws check"),
    ("ThrottlingException", "Rate exceeded", 400, BackendError, "by itself"),
    ("SlowDown", "Please reduce your request rate", 503, BackendError, "by itself"),
    ("ResourceInUse", "already exists", 400, NameTaken, "elias aws check"),
    ("ResourceLimitExceeded", "The account-level service limit", 400, QuotaExhausted, "quota"),
    ("CapacityError", "Unable to provision", 400, NoCapacity, "another instance type"),
    ("ValidationException", "Requested resource not found.", 400, NotFound, "elias aws check"),
    ("ValidationException", "1 validation error detected", 400, ConfigError, "elias aws check"),
    ("NoSuchBucket", "The bucket does not exist", 404, NotFound, "elias aws check"),
    ("400", "Bad Request", 400, LoggedOut, "aws sso login"),
    ("PermanentRedirect", "must be addressed using", 301, ConfigError, "region"),
    ("InternalFailure", "it failed", 500, BackendError, "by itself"),
    ("SomethingNew", "nobody has seen this", 400, ConfigError, "elias aws check"),
]


@pytest.mark.parametrize(("code", "message", "status", "kind", "fix"), ANSWERS)
def test_what_aws_answers_is_said_in_our_words(code: str, message: str, status: int, kind: Any, fix: str) -> None:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(kind) as raised, aws_errors("asking"):
        raise boto.ClientError(response, "Operation")
    assert type(raised.value) is kind and fix in raised.value.fix and message in raised.value.what


UNREACHED: list[tuple[Exception, type[EliasError], str]] = [
    (boto.NoCredentialsError(), LoggedOut, "aws sso login"),
    (boto.TokenRetrievalError(provider="sso", error_msg="expired"), LoggedOut, "aws sso login"),
    (boto.UnauthorizedSSOTokenError(), LoggedOut, "aws sso login"),
    (boto.ProfileNotFound(profile="work"), ConfigError, "profile"),
    (boto.EndpointConnectionError(endpoint_url="https://nowhere"), OutOfReach, "by itself"),
    (boto.ReadTimeoutError(endpoint_url="https://slow"), OutOfReach, "by itself"),
    (boto.NoRegionError(), ConfigError, "region"),
]


@pytest.mark.parametrize(("error", "kind", "fix"), UNREACHED)
def test_an_aws_that_is_not_reached_is_said_in_our_words(error: Exception, kind: Any, fix: str) -> None:
    with pytest.raises(kind) as raised, aws_errors("asking"):
        raise error
    assert type(raised.value) is kind and fix in raised.value.fix


def test_without_a_region_the_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError) as raised:
        _ = Clients(SageMakerSettings.read({})).region
    assert "[backends.sagemaker]" in raised.value.fix


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity.", FailureKind.CAPACITY),
        ("ResourceLimitExceeded: The account-level service limit", FailureKind.QUOTA),
        ("AlgorithmError: CUDA out of memory. Tried to allocate 2 GiB, exit code: 1", FailureKind.USER),
        ("AlgorithmError: , exit code: 137", FailureKind.INFRASTRUCTURE),
        ("AlgorithmError: , exit code: 1", FailureKind.USER),
        ("AlgorithmError: private data: the image has no pyrage, exit code: 1", FailureKind.USER),
        ("AlgorithmError: corpus.jsonl is not the sha256:ab that names, exit code: 75", FailureKind.VERIFICATION),
        ("InternalServerError: We encountered an internal error. Please try again.", FailureKind.INFRASTRUCTURE),
        ("ClientError: Please use an instance type with more memory", FailureKind.USER),
        ("ClientError: Data download failed: AccessDenied", FailureKind.USER),
    ],
)
def test_a_failure_reason_decides_what_the_run_does_next(reason: str, kind: FailureKind) -> None:
    assert of_reason(reason)[0] is kind


def test_a_difference_between_order_and_job_is_named_with_both_values() -> None:
    ordered = {"StoppingCondition": {"MaxRuntimeInSeconds": 60}, "Channels": [{"Name": "code"}]}
    assert first_difference(ordered, {**ordered, "More": 1}) is None
    changed = {"StoppingCondition": {"MaxRuntimeInSeconds": 86_400}, "Channels": [{"Name": "code"}]}
    assert first_difference(ordered, changed) == "StoppingCondition.MaxRuntimeInSeconds is 86400 where 60 was ordered"
    assert "Channels" in str(first_difference(ordered, {**ordered, "Channels": []}))
    assert "StoppingCondition" in str(first_difference(ordered, {"Channels": ordered["Channels"]}))


def test_job_names_are_what_sagemaker_takes_and_never_the_same_for_two_segments() -> None:
    names = [job_name(node, key) for node in ("a", "A.b_c" * 30) for key in ("r-1-0001", "r-1-0002", "x" * 80)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() and name.startswith("elias-") for name in names)


def test_a_hundred_jobs_are_asked_after_below_what_aws_throttles_at() -> None:
    now = 0.0
    pace, asked = Pace(SageMakerSettings(), lambda: now), dict.fromkeys(map(str, range(100)), 0)
    for _ in range(1200):  # ten minutes of a coordinator that polls each job every half second
        for key in asked:
            asked[key] += pace.may_ask(key, running=100, is_urgent=False)
        now += 0.5
    assert sum(asked.values()) <= 10 * SageMakerSettings().calls_per_minute + 1
    assert min(asked.values()) >= 5, "some job was forgotten"
    assert pace.every_s(1) == timedelta(seconds=20).total_seconds()
