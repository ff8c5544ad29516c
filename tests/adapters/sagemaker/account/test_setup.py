"""Set-up makes everything once, puts right what was changed, is the same as the template, and can be taken away."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest
import yaml

from elias.adapters.backends.sagemaker import policies
from elias.adapters.backends.sagemaker.names import SETUP_TAGS, as_tags, bucket_name, caller_policy_name, role_name
from elias.adapters.backends.sagemaker.policies import Place
from elias.adapters.backends.sagemaker.setup import Setup, State, caller_arn
from elias.adapters.backends.sagemaker.teardown import Teardown
from elias.errors import Refused

ACCOUNT, REGION, KEY = "123456789012", "us-east-1", "arn:aws:kms:us-east-1:123456789012:key/1234"
BUCKET = bucket_name(ACCOUNT, REGION)


def everything_home(node: str, run: str) -> bool:
    return True


@pytest.fixture
def setup(clients, account):
    yield Setup(clients)
    list(Teardown(clients, everything_home).apply(force=True))


def states(findings) -> dict[str, State]:
    return {finding.part: finding.state for finding in findings}


def test_a_bare_account_lacks_everything_and_looking_makes_nothing(setup):
    assert set(states(setup.look()).values()) == {State.MISSING}
    assert set(states(setup.look()).values()) == {State.MISSING}


def test_apply_makes_all_of_it_and_a_second_time_nothing(setup, account):
    list(setup.apply())
    assert set(states(setup.look()).values()) == {State.THERE}
    before = len(account.disk.requests())
    assert set(states(setup.apply()).values()) == {State.THERE}
    changing = ("Create", "Put", "Enable", "Update", "Delete", "s3.PUT", "s3.DELETE")
    assert not [r["call"] for r in account.disk.requests()[before:] if r["call"].startswith(changing)]


def test_apply_goes_on_after_it_was_cut_off_anywhere(setup):
    for made in range(1, 12, 3):
        parts = setup.apply()
        for _ in range(made):
            next(parts)
        parts.close()
    list(setup.apply())
    assert set(states(setup.look()).values()) == {State.THERE}


def test_what_somebody_changed_is_told_and_put_right(setup, clients):
    list(setup.apply())
    s3, iam = clients.get("s3"), clients.get("iam")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    s3.delete_bucket_policy(Bucket=BUCKET)
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=role_name(REGION), PolicyName=policies.ROLE_POLICY, PolicyDocument=json.dumps(wide))
    iam.create_policy_version(PolicyArn=caller_arn(setup.place()), PolicyDocument=json.dumps(wide), SetAsDefault=True)
    found = states(setup.look())
    assert found["bucket's versions"] is found["role's policy"] is found["caller's policy"] is State.DIFFERS
    assert found["bucket's policy"] is State.MISSING
    assert all(finding.fix == "elias aws setup --apply" for finding in setup.look() if finding.state != State.THERE)
    list(setup.apply())
    assert set(states(setup.look()).values()) == {State.THERE}


def test_the_callers_policy_can_be_put_right_more_often_than_aws_keeps_versions(setup, clients):
    list(setup.apply())
    for number in range(7):
        other = policies.caller_policy(setup.place()) | {"Id": f"changed{number}"}
        versions = clients.get("iam").list_policy_versions(PolicyArn=caller_arn(setup.place()))["Versions"]
        if len(versions) == 5:
            old = next(v["VersionId"] for v in versions if not v["IsDefaultVersion"])
            clients.get("iam").delete_policy_version(PolicyArn=caller_arn(setup.place()), VersionId=old)
        clients.get("iam").create_policy_version(
            PolicyArn=caller_arn(setup.place()), PolicyDocument=json.dumps(other), SetAsDefault=True
        )
        list(setup.apply())
    assert states(setup.look())["caller's policy"] is State.THERE


def test_everything_that_was_made_is_tagged(setup, clients):
    list(setup.apply())
    key = clients.get("kms").list_resource_tags(KeyId=setup.place().key_arn)["Tags"]
    assert key == as_tags(SETUP_TAGS, "TagKey", "TagValue")
    assert clients.get("s3").get_bucket_tagging(Bucket=BUCKET)["TagSet"] == as_tags(SETUP_TAGS)
    assert clients.get("iam").list_role_tags(RoleName=role_name(REGION))["Tags"] == as_tags(SETUP_TAGS)


def test_the_job_may_not_delete_nor_leave_its_prefix():
    statements = policies.role_policy(place())["Statement"]
    assert not [action for s in statements for action in s["Action"] if "Delete" in action]
    reach = {r for s in statements if any(a.startswith("s3:") for a in s["Action"]) for r in aslist(s["Resource"])}
    assert reach == {f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/elias/*"}


def test_the_caller_passes_that_one_role_to_sagemaker_alone_and_starts_jobs_of_that_name_alone():
    by_sid = {s["Sid"]: s for s in policies.caller_policy(place())["Statement"]}
    assert by_sid["PassRole"]["Resource"].endswith(f":role/{role_name(REGION)}")
    assert by_sid["PassRole"]["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert by_sid["Jobs"]["Resource"].endswith(":training-job/elias-*")
    everywhere = {action for s in by_sid.values() if s["Resource"] == "*" for action in s["Action"]}
    assert everywhere == {
        "kms:ListAliases",
        "pricing:GetProducts",
        "sagemaker:ListTrainingJobs",
        "servicequotas:GetServiceQuota",
        "servicequotas:ListServiceQuotas",
    }, "calls that AWS lets nobody limit to a resource, or that only read"


# Taking away


def test_teardown_takes_everything_and_schedules_the_key(setup, clients):
    list(setup.apply())
    clients.get("s3").put_object(Bucket=BUCKET, Key="elias/attic/run-1/x", Body=b"1")
    clients.get("s3").put_object(Bucket=BUCKET, Key="elias/attic/run-1/x", Body=b"2")
    key = setup.place().key_arn
    teardown = Teardown(clients, everything_home)
    planned = [removal.what for removal in teardown.look()]
    assert [what.split()[0] for what in planned] == ["policy", "role", "bucket", "key"]
    assert [removal.what for removal in teardown.apply(force=False)] == planned
    assert list(teardown.apply(force=False)) == []
    assert set(states(setup.look()).values()) == {State.MISSING}
    assert clients.get("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_teardown_refuses_while_a_run_lies_in_the_bucket_alone(setup, clients):
    list(setup.apply())
    clients.get("s3").put_object(Bucket=BUCKET, Key="elias/attic/run-1/job/checkpoints/step-5/a", Body=b"1")
    clients.get("s3").put_object(Bucket=BUCKET, Key="elias/attic/artifacts/ab/model.tar.gz", Body=b"1")
    teardown = Teardown(clients, lambda node, run: False)
    with pytest.raises(Refused, match="run-1 of node attic") as refused:
        list(teardown.apply(force=False))
    assert "--force" in refused.value.fix and refused.value.kept == "everything"
    assert states(setup.look())["bucket"] is State.THERE
    list(teardown.apply(force=True))
    assert states(setup.look())["bucket"] is State.MISSING


# The template


class Template(yaml.SafeLoader):
    """CloudFormation's own tags, as `{"Fn::…": …}`."""


for _tag in ("Ref", "Sub", "GetAtt"):
    Template.add_constructor(f"!{_tag}", lambda loader, node, tag=_tag: {f"Fn::{tag}": loader.construct_scalar(node)})


def place() -> Place:
    return Place(account=ACCOUNT, region=REGION, bucket=BUCKET, prefix="elias", role=role_name(REGION), key_arn=KEY)


VALUES = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "Prefix": "elias",
    "Bucket": BUCKET,
    "Bucket.Arn": f"arn:aws:s3:::{BUCKET}",
    "Key": "1234",
    "Key.Arn": KEY,
    "Role.Arn": f"arn:aws:iam::{ACCOUNT}:role/{role_name(REGION)}",
}


def resolved(value: Any) -> Any:
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) in (["Fn::Ref"], ["Fn::GetAtt"]):
        return VALUES[next(iter(value.values()))]
    if list(value) == ["Fn::Sub"]:
        return re.sub(r"\$\{([^}]+)\}", lambda found: VALUES[found[1]], value["Fn::Sub"])
    return {name: resolved(item) for name, item in value.items()}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    text = files("elias.adapters.backends.sagemaker").joinpath("cloudformation.yaml").read_text(encoding="utf-8")
    return {name: resolved(r["Properties"]) for name, r in yaml.load(text, Template)["Resources"].items()}


def test_the_template_has_the_same_names_policies_and_tags(template):
    assert template["Key"] == {
        "Description": policies.KEY_DESCRIPTION,
        "EnableKeyRotation": True,
        "KeyPolicy": policies.key_policy(place()),
        "Tags": as_tags(SETUP_TAGS),
    }
    assert template["KeyAlias"] == {"AliasName": "alias/elias", "TargetKeyId": "1234"}
    assert template["BucketPolicy"] == {"Bucket": BUCKET, "PolicyDocument": policies.bucket_policy(place())}
    assert template["Role"] == {
        "RoleName": role_name(REGION),
        "Description": policies.ROLE_DESCRIPTION,
        "AssumeRolePolicyDocument": policies.trust_policy(place()),
        "Policies": [{"PolicyName": policies.ROLE_POLICY, "PolicyDocument": policies.role_policy(place())}],
        "Tags": as_tags(SETUP_TAGS),
    }
    assert template["CallerPolicy"] == {
        "ManagedPolicyName": caller_policy_name(REGION),
        "Description": policies.CALLER_DESCRIPTION,
        "PolicyDocument": policies.caller_policy(place()),
    }


def test_the_template_has_the_same_bucket(template):
    (encryption,) = policies.encryption(place())["Rules"]
    (rule,) = policies.lifecycle()["Rules"]
    assert template["Bucket"] == {
        "BucketName": BUCKET,
        "PublicAccessBlockConfiguration": policies.public_access_block(),
        "VersioningConfiguration": {"Status": "Enabled"},
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {
                    "ServerSideEncryptionByDefault": encryption["ApplyServerSideEncryptionByDefault"],
                    "BucketKeyEnabled": encryption["BucketKeyEnabled"],
                }
            ]
        },
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "Id": rule["ID"],
                    "Status": rule["Status"],
                    "Prefix": rule["Filter"]["Prefix"],
                    "NoncurrentVersionExpiration": rule["NoncurrentVersionExpiration"],
                    "AbortIncompleteMultipartUpload": rule["AbortIncompleteMultipartUpload"],
                }
            ]
        },
        "Tags": as_tags(SETUP_TAGS),
    }


def test_what_setup_makes_in_an_account_is_what_the_template_says(setup, clients, template):
    list(setup.apply())
    iam, role = clients.get("iam"), role_name(REGION)
    made = {**VALUES, "Key.Arn": setup.place().key_arn}
    own = iam.get_role_policy(RoleName=role, PolicyName=policies.ROLE_POLICY)["PolicyDocument"]
    wanted = json.dumps(template["Role"]["Policies"][0]["PolicyDocument"]).replace(KEY, made["Key.Arn"])
    assert own == json.loads(wanted)
    assert (
        iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        == (template["Role"]["AssumeRolePolicyDocument"])
    )


def aslist(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
