"""The one door to AWS: boto3's clients with bounded waits, and its errors as ours.

Credentials come only from where boto3 itself looks (environment, profile, SSO, instance role); none is kept here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.config import Config

from elias.adapters.backends.sagemaker import names
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.errors import BackendError, ConfigError, EliasError, NotFound, QuotaExhausted

LOG_IN = "log in again: aws sso login (or renew the keys that boto3 finds); what waits then goes on by itself"
CHECK = "elias aws check"
POOL = 20
"""Connections at once: parts of an upload, and the threads that look after jobs."""


class LoggedOut(BackendError):
    """The credentials have expired or were never there. Worth a retry: a person logs in, and all goes on."""


class OutOfReach(BackendError):
    """Nobody answered: the network is gone, or AWS is."""


class NameTaken(BackendError):
    """There is a job of that name already."""


class NoCapacity(BackendError):
    """AWS has no such machine at the moment."""


class Clients:
    """boto3's clients, one a service and region, made on first use and shared by threads."""

    def __init__(self, settings: SageMakerSettings, environment: Mapping[str, str] | None = None) -> None:
        """`environment` gives AWS_ENDPOINT_URL where the settings name no endpoint; boto3 reads the rest itself."""
        self.settings = settings
        self.endpoint_url = settings.endpoint_url or (environment or {}).get("AWS_ENDPOINT_URL")
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}
        self._session: boto3.session.Session | None = None
        self._account: str | None = None
        self._key: str | None = None

    @property
    def region(self) -> str:
        """Raises ConfigError where none is set."""
        region = self._boto().region_name
        if not region:
            raise ConfigError(
                "no AWS region is set", fix='under [backends.sagemaker] set region = "us-east-1", or another'
            )
        return str(region)

    def has_credentials(self) -> bool:
        """In the environment, a profile or a sign-in's cache; a machine's own role is not asked of the network."""
        session = botocore.session.Session(profile=self.settings.profile)
        try:
            providers = session.get_component("credential_provider")
            for asks_network in ("container-role", "iam-role"):
                providers.remove(asks_network)
            return providers.load_credentials() is not None
        except boto.BotoCoreError:
            return False  # half a key, or a profile that is not there: nothing to go on with

    def account(self) -> str:
        """The account's 12 digits. Raises LoggedOut, BackendError."""
        if self._account is None:
            with aws_errors("asking AWS whose credentials these are"):
                self._account = str(self.get("sts").get_caller_identity()["Account"])
        return self._account

    def bucket(self) -> str:
        """The settings' bucket, or the one of `elias aws setup`."""
        return self.settings.bucket or names.bucket_name(self.account(), self.region)

    def role(self) -> str:
        """The ARN of the jobs' execution role."""
        name = self.settings.role or names.role_name(self.region)
        if name.startswith("arn:"):
            return name
        partition = "aws-cn" if self.region.startswith("cn-") else "aws"
        return f"arn:{partition}:iam::{self.account()}:role/{name}"

    def kms_key(self) -> str:
        """The ARN of the key: not every member of a job's request takes an alias. Raises NotFound."""
        name = self.settings.kms_key or names.KEY_ALIAS
        if name.startswith("arn:") and ":key/" in name:
            return name
        if self._key is None:
            with aws_errors(f"looking for the key {name}"):
                self._key = str(self.get("kms").describe_key(KeyId=name)["KeyMetadata"]["Arn"])
        return self._key

    def get(self, service: str, region: str | None = None) -> Any:
        """A client. Raises ConfigError for a profile or region that does not exist."""
        place = (service, region or self.region)
        with self._lock:
            if place not in self._made:
                with aws_errors(f"reaching {service}"):
                    self._made[place] = self._boto().client(
                        service, region_name=place[1], endpoint_url=self.endpoint_url, config=self._config()
                    )
            return self._made[place]

    def close(self) -> None:
        with self._lock:
            for client in self._made.values():
                client.close()
            self._made.clear()

    def _boto(self) -> boto3.session.Session:
        if self._session is None:
            with aws_errors("reading the AWS configuration"):
                self._session = boto3.session.Session(
                    region_name=self.settings.region, profile_name=self.settings.profile
                )
        return self._session

    def _config(self) -> Config:
        return Config(
            retries={"mode": "adaptive", "total_max_attempts": self.settings.http_tries},
            connect_timeout=self.settings.http_connect.total_seconds(),
            read_timeout=self.settings.http_read.total_seconds(),
            max_pool_connections=POOL,
            user_agent_appid="elias",
            proxies={} if self._is_loopback else None,
        )

    @property
    def _is_loopback(self) -> bool:
        return bool(self.endpoint_url and self.endpoint_url.startswith(("http://127.", "http://localhost")))


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """What boto3 raises, as one of ours. `doing` begins the sentence that a person reads."""
    try:
        yield
    except boto.ClientError as error:
        raise _of_answer(error, doing) from error
    except boto.BotoCoreError as error:
        raise _of_boto(error, doing) from error


def error_code(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


LOGGED_OUT = (
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "400",  # all that an S3 HEAD tells of an expired token
)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "KMS.AccessDeniedException")
THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "SlowDown",
    "RequestLimitExceeded",
    "RequestThrottled",
    "PriorRequestNotComplete",
)
MISSING = (
    "404",
    "NoSuchKey",
    "NoSuchBucket",
    "NoSuchUpload",
    "NotFound",
    "NoSuchEntity",
    "ResourceNotFound",
    "ResourceNotFoundException",
    "NoSuchResourceException",
    "NotFoundException",
)

ELSEWHERE = ("301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")

Make = Callable[[str], EliasError]


def _of_answer(error: boto.ClientError, doing: str) -> EliasError:
    """AWS said no."""
    code, message = error_code(error), str(error.response.get("Error", {}).get("Message", ""))
    what = f"{doing}: AWS answers {code or 'without a code'}: {message}"
    if code == "ValidationException" and "not found" in message.lower():
        return NotFound(what, fix=CHECK)
    made: tuple[tuple[tuple[str, ...], Make], ...] = (
        (LOGGED_OUT, lambda w: LoggedOut(w, fix=LOG_IN)),
        (DENIED, lambda w: ConfigError(w, fix=f"{CHECK} names the permission that is missing")),
        (THROTTLED, lambda w: BackendError(w, fix="AWS slows this account down; it is asked again by itself")),
        (MISSING, lambda w: NotFound(w, fix=f"{CHECK}; elias aws setup makes what is missing")),
        (ELSEWHERE, lambda w: ConfigError(w, fix="the bucket is in another region: set region or bucket to match")),
        (("ResourceInUse",), lambda w: NameTaken(w, fix=CHECK)),
        (("ResourceLimitExceeded",), lambda w: QuotaExhausted(w, fix=f"{CHECK} names the quota to be raised")),
        (("CapacityError", "InsufficientCapacity"), lambda w: NoCapacity(w, fix="try another instance type")),
        (("ValidationException", "ValidationError"), lambda w: ConfigError(w, fix=CHECK)),
    )
    make = next((make for codes, make in made if code in codes), None)
    if make is not None:
        return make(what)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    if 400 <= status < 500 and status not in (408, 409, 412, 429):
        return ConfigError(what, fix=CHECK)
    return BackendError(what, fix="it is asked again by itself; see https://health.aws.amazon.com")


def _of_boto(error: boto.BotoCoreError, doing: str) -> EliasError:
    """AWS was not reached, or not asked."""
    what = f"{doing}: {error}"
    logged_out = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.SSOError,
        boto.TokenRetrievalError,
    )
    if isinstance(error, logged_out):
        return LoggedOut(what, fix=LOG_IN)
    if isinstance(error, boto.ProfileNotFound):
        return ConfigError(what, fix="under [backends.sagemaker] set profile to one of: aws configure list-profiles")
    if isinstance(error, boto.EndpointConnectionError | boto.HTTPClientError | boto.IncompleteReadError):
        return OutOfReach(what, fix="check the connection, and the region's name; it is asked again by itself")
    if isinstance(error, boto.NoRegionError | boto.InvalidRegionError | boto.UnknownRegionError):
        return ConfigError(what, fix='under [backends.sagemaker] set region = "us-east-1", or another')
    if isinstance(error, boto.ParamValidationError | boto.UnknownServiceError):
        return ConfigError(what, fix=CHECK)
    return BackendError(what, fix=CHECK)
