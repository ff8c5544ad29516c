"""Every right that training on SageMaker needs, as the documents that `elias aws setup` puts in place.

`cloudformation.yaml` holds the same; a test compares the two. docs/sagemaker.md says of each line why it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from elias.adapters.backends.sagemaker.names import JOB_PREFIX

Json = dict[str, Any]
VERSION = "2012-10-17"
"""Of IAM's policy language."""
NONCURRENT_DAYS = 30
"""A version that was overwritten or deleted can be had back for so long."""
MULTIPART_DAYS = 7
"""After which the parts of an upload that was never finished are dropped; until then they are billed."""
LOG_GROUP = "/aws/sagemaker/TrainingJobs"


KEY_DESCRIPTION = "ELIAS, training data and models"
ROLE_DESCRIPTION = "What an ELIAS training job may do"
ROLE_POLICY = "elias-training"
CALLER_DESCRIPTION = "What an ELIAS node needs to train on SageMaker"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The account, and what things in it are called."""

    account: str
    region: str
    bucket: str
    prefix: str
    role: str
    key_arn: str
    partition: str = "aws"

    def arn(self, service: str, rest: str) -> str:
        """Of something in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"

    @property
    def bucket_arn(self) -> str:
        return f"arn:{self.partition}:s3:::{self.bucket}"

    @property
    def objects_arn(self) -> str:
        return f"{self.bucket_arn}/{self.prefix}/*"

    @property
    def role_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/{self.role}"

    @property
    def jobs_arn(self) -> str:
        return self.arn("sagemaker", f"training-job/{JOB_PREFIX}*")


def key_policy(place: Place) -> Json:
    """The account's own policies decide who may use the key, as AWS's default has it."""
    owner = {"AWS": f"arn:{place.partition}:iam::{place.account}:root"}
    return _policy({"Sid": "Account", "Effect": "Allow", "Principal": owner, "Action": "kms:*", "Resource": "*"})


def bucket_policy(place: Place) -> Json:
    return _policy(
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [place.bucket_arn, f"{place.bucket_arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    )


def trust_policy(place: Place) -> Json:
    """SageMaker alone takes on the role, and only for this account: no confused deputy."""
    return _policy(
        {
            "Sid": "TrainingJobs",
            "Effect": "Allow",
            "Principal": {"Service": "sagemaker.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": place.account}},
        }
    )


def role_policy(place: Place) -> Json:
    """What a job may do: nothing is deleted, nothing outside its prefix is read."""
    log_group = place.arn("logs", f"log-group:{LOG_GROUP}")
    images = f"arn:{place.partition}:ecr:{place.region}:*:repository/*pytorch-training"
    own_images = place.arn("ecr", "repository/*")
    return _policy(
        _allow("List", ["s3:ListBucket"], place.bucket_arn) | _below(place),
        _allow("Objects", ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], place.objects_arn),
        _allow("Key", ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"], place.key_arn),
        _allow(
            "Logs",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [log_group, f"{log_group}:*"],
        ),
        _allow("Metrics", ["cloudwatch:PutMetricData"], "*")
        | {"Condition": {"StringEquals": {"cloudwatch:namespace": LOG_GROUP}}},
        _allow("Registry", ["ecr:GetAuthorizationToken"], "*"),
        _allow(
            "Images",
            ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            [images, own_images],
        ),
    )


_LOOK_AT_BUCKET = [
    "s3:GetBucketLocation",
    "s3:GetBucketPolicy",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketTagging",
    "s3:GetBucketVersioning",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
]


def caller_policy(place: Place) -> Json:
    """What the node itself may do, once everything is set up."""
    log_group = place.arn("logs", f"log-group:{LOG_GROUP}")
    return _policy(
        _allow(
            "Jobs",
            [
                "sagemaker:AddTags",
                "sagemaker:CreateTrainingJob",
                "sagemaker:DescribeTrainingJob",
                "sagemaker:ListTags",
                "sagemaker:StopTrainingJob",
            ],
            place.jobs_arn,
        ),
        _allow("ListJobs", ["sagemaker:ListTrainingJobs"], "*"),
        _allow("PassRole", ["iam:PassRole"], place.role_arn)
        | {"Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}},
        _allow("LookAtRole", ["iam:GetRole", "iam:GetRolePolicy"], place.role_arn),
        _allow(
            "Bucket",
            _LOOK_AT_BUCKET,
            place.bucket_arn,
        ),
        _allow(
            "Objects",
            [
                "s3:AbortMultipartUpload",
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                "s3:GetObject",
                "s3:GetObjectVersion",
                "s3:ListMultipartUploadParts",
                "s3:PutObject",
                "s3:PutObjectTagging",
            ],
            place.objects_arn,
        ),
        _allow("Key", ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"], place.key_arn),
        _allow("VolumeKey", ["kms:CreateGrant"], place.key_arn)
        | {"Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}}},
        _allow("LookAtKeys", ["kms:GetKeyRotationStatus", "kms:ListResourceTags"], place.arn("kms", "key/*")),
        _allow("ListKeys", ["kms:ListAliases"], "*"),
        _allow(
            "Logs",
            ["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"],
            [log_group, f"{log_group}:*"],
        ),
        _allow(
            "PricesAndQuotas",
            ["pricing:GetProducts", "servicequotas:GetServiceQuota", "servicequotas:ListServiceQuotas"],
            "*",
        ),
    )


def public_access_block() -> Json:
    return {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }


def encryption(place: Place) -> Json:
    """The bucket key saves a call to KMS, and its price, for almost every object."""
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": place.key_arn}
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]}


def lifecycle() -> Json:
    """Nothing that is current ever expires by itself: it may be the only copy of a checkpoint."""
    return {
        "Rules": [
            {
                "ID": "elias-leftovers",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": MULTIPART_DAYS},
            }
        ]
    }


def _policy(*statements: Json) -> Json:
    return {"Version": VERSION, "Statement": list(statements)}


def _allow(sid: str, actions: list[str], resource: str | list[str]) -> Json:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}


def _below(place: Place) -> Json:
    return {"Condition": {"StringLike": {"s3:prefix": [place.prefix, f"{place.prefix}/*"]}}}
