"""`[backends.sagemaker]`: what a user may set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from elias.adapters.backends.tables import read_like_defaults
from elias.errors import ConfigError

TABLE = "[backends.sagemaker]"
SPANS = (
    "longest",
    "grace",
    "shortest",
    "save",
    "upload",
    "spot_wait",
    "start_limit",
    "missing_limit",
    "patience",
    "http_connect",
    "http_read",
    "poll_every",
    "orphan_grace",
)
CHOICES = {"spot": ("auto", "always", "never"), "network_isolation": ("auto", "always", "never")}


@dataclass(frozen=True, kw_only=True, slots=True)
class SageMakerSettings:
    region: str | None = None
    """Such as us-east-1; absent, that of AWS_DEFAULT_REGION or of the profile."""
    profile: str | None = None
    """A profile of ~/.aws/config; absent, what boto3 finds by itself."""
    endpoint_url: str | None = None
    """Another endpoint for all of AWS, such as the emulator's; absent, AWS_ENDPOINT_URL."""
    bucket: str | None = None
    """Absent, the one that `elias aws setup` made for this account and region."""
    prefix: str = "elias"
    """All that ELIAS keeps in the bucket lies below it."""
    role: str | None = None
    """Name or ARN of the jobs' execution role; absent, the one that `elias aws setup` made."""
    kms_key: str | None = None
    """Id, ARN or alias of the key for the bucket and the jobs' outputs; absent, the one that `elias aws setup` made."""
    instance: str | None = None
    """The only instance type to be used, such as ml.g5.xlarge; absent, all that fit are offered."""
    spot: str = "auto"
    """`always` or `never` offers only one kind of capacity."""
    image: str | None = None
    """The training image; absent, AWS's own for Hugging Face training in the region."""
    python: str = "python3"
    """The interpreter in the image."""
    wheels: str | None = None
    """A folder of wheels that the job installs before it trains, without the internet."""
    base_source: str | None = None
    """Where the base's files lie in S3, `s3://bucket/folder/`; they become a channel of the job."""
    image_holds_base: bool = False
    """Whether the image itself holds all that the base needs, so that the job needs no network."""
    network_isolation: str = "auto"
    """`auto` isolates a job whose base comes in a channel or in its image."""
    volume_gb: int = 50
    """Of an instance that has no disk of its own; more where the segment's files need more."""
    longest: timedelta = timedelta(hours=24)
    """The longest segment; AWS allows 5 days unless the account's quota says otherwise."""
    grace: timedelta = timedelta(seconds=120)
    """What SageMaker gives a job that it stops; reserved for each segment on top of its hours."""
    shortest: timedelta = timedelta(minutes=2)
    """A segment is reserved no shorter, even one that only writes the adapter: its start alone takes as long."""
    save: timedelta = timedelta(seconds=30)
    """Before SageMaker's limit the trainer ends by itself."""
    upload: timedelta = timedelta(seconds=60)
    """Reserved for the upload of outputs, which is billed too."""
    spot_wait: timedelta = timedelta(hours=1)
    """How long a spot job may wait for capacity, over its running time."""
    start_limit: timedelta = timedelta(minutes=45)
    """A job that has not begun to download its inputs by then is stopped, and its segment goes elsewhere."""
    interruptions: int = 2
    """Spot segments of a run that were interrupted without gain; then it is offered on-demand capacity only."""
    fetch_tries: int = 5
    """How often outputs that did not come whole are fetched before the segment counts as failed."""
    largest_output_gb: int = 200
    """What comes home is refused above this."""
    keep_artifacts: bool = True
    """Whether a finished adapter also stays in S3, under its digest, when its run is over."""
    missing_limit: timedelta = timedelta(minutes=10)
    """A job that SageMaker does not show for so long is gone."""
    patience: timedelta = timedelta(days=1)
    """How long AWS may be out of reach before a segment is given up."""
    poll_every: timedelta = timedelta(seconds=20)
    """A job is described no more often than this."""
    calls_per_minute: int = 90
    """Of DescribeTrainingJob, over all jobs: with many, each is asked after more seldom. AWS throttles at about 120."""
    http_tries: int = 5
    http_connect: timedelta = timedelta(seconds=10)
    http_read: timedelta = timedelta(seconds=60)
    """How long AWS may be silent in a call."""
    live_prices: bool = True
    """Whether the price list is read; else, and where it cannot be, prices are those of the shipped table."""
    stop_orphans: bool = False
    """Whether a job with this node's tags that no run owns is stopped; it is reported in any case."""
    orphan_grace: timedelta = timedelta(minutes=30)
    """How old such a job must be for that."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> SageMakerSettings:
        """Raises ConfigError naming the setting."""
        made = cls(**read_like_defaults(TABLE, raw, cls, SPANS))
        for name, allowed in CHOICES.items():
            if (value := getattr(made, name)) not in allowed:
                raise ConfigError(f"{TABLE} {name} is {value!r}", fix=f"set {name} to one of: {', '.join(allowed)}")
        if made.base_source is not None and not made.base_source.startswith("s3://"):
            raise ConfigError(
                f"{TABLE} base_source is {made.base_source!r}", fix='write it like base_source = "s3://bucket/folder/"'
            )
        if made.longest <= max(made.shortest, made.grace + made.upload):
            raise ConfigError(
                f"{TABLE} longest {made.longest} is less than grace and upload, or than shortest",
                fix='write it like: longest = "24h"',
            )
        return made
