"""`elias aws` as typed, against the emulated account."""

import io
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from elias.adapters.backends.sagemaker.names import bucket_name
from elias.cli.shell import run_command
from elias.testing.sagemaker_emulator import SageMakerEmulator

Elias = Callable[..., "Done"]
BUCKET = bucket_name("123456789012", "us-east-1")
CONFIG = '[node]\nname = "attic" # mine\n\n[backends.sagemaker] # my account\nregion = "us-east-1"\n'


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SageMakerEmulator]:
    with SageMakerEmulator(tmp_path_factory.mktemp("aws") / "state") as emulator:
        yield emulator


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def elias(
    emulated: SageMakerEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Elias:
    """In this process: each new one would spend a second on boto3."""
    (tmp_path / "config.toml").write_text(CONFIG)
    mine = {
        "ELIAS_HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": emulated.url,
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, text in mine.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*words: str) -> Done:
        capsys.readouterr()
        code = run_command("elias", "aws", "aws", list(words))
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


@pytest.mark.slow
def test_from_a_bare_account_to_a_set_up_one_and_back(elias: Elias, emulated: SageMakerEmulator, tmp_path: Path):
    shown = elias("setup")
    assert shown.returncode == 0, shown.stderr
    assert "nothing was made" in shown.stderr and shown.stdout.count("missing") == 12
    assert elias("check").returncode == 2
    assert (tmp_path / "config.toml").read_text() == CONFIG

    done = elias("setup", "--apply")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "config.toml").read_text()
    assert "# mine" in written and "# my account" in written
    assert tomllib.loads(written)["backends"]["sagemaker"] == {
        "region": "us-east-1",
        "bucket": BUCKET,
        "role": "arn:aws:iam::123456789012:role/elias-training-us-east-1",
        "kms_key": "alias/elias",
    }
    again = json.loads(elias("setup", "--apply", "--json").stdout)
    assert again["made"] == [] and {part["state"] for part in again["parts"]} == {"there"}

    emulated.disk.configure(quotas={"ml.g5.2xlarge": 0})
    checked = elias("check")
    assert checked.returncode == 0, checked.stderr
    assert "0 (L-2D6DEB3C)" in checked.stdout and "request-service-quota-increase" in checked.stdout

    s3 = boto3.client("s3", endpoint_url=emulated.url, region_name="us-east-1", aws_access_key_id="AKIATEST",
                      aws_secret_access_key="x")  # fmt: skip
    s3.put_object(Bucket=BUCKET, Key="elias/attic/run-lost/job/checkpoints/step-3/x", Body=b"1")
    swept = elias("sweep")
    assert swept.returncode == 0, swept.stderr
    assert "run-lost/: this node's store has no such run" in swept.stdout

    assert "in the way: the run run-lost of node attic" in elias("teardown").stdout
    unasked = elias("teardown", "--apply")
    assert unasked.returncode == 2 and "--yes" in unasked.stderr
    refused = elias("teardown", "--apply", "--yes")
    assert refused.returncode == 4 and "--force" in refused.stderr
    gone = json.loads(elias("teardown", "--apply", "--force", "--yes", "--json").stdout)
    assert [thing["what"].split()[0] for thing in gone["removed"]] == ["policy", "role", "bucket", "key"]


def test_the_policies_are_shown_in_full_where_they_are_wanted(elias: Elias):
    shown = elias("setup", "--documents")
    assert '"aws:SecureTransport": "false"' in shown.stdout
    documents = json.loads(elias("setup", "--json").stdout)["documents"]
    assert set(documents) >= {"role policy", "caller policy", "bucket policy", "key policy", "role trust"}


def test_a_job_that_is_not_there_cannot_be_stopped(elias: Elias):
    done = elias("sweep", "--stop", "elias-attic-gone", "--yes")
    assert done.returncode == 3 and "elias aws sweep lists them" in done.stderr
