"""Which places `hybrid` goes to: this machine, what is configured, and what finds its credentials."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from elias.adapters.clock import SystemClock
from elias.config import Config
from elias.config.schema import Training
from elias.domain.label import Label
from elias.domain.offer import Need
from elias.domain.run import HYBRID
from elias.errors import ConfigError, NotFound
from elias.services.runs import Wanted
from elias.services.silent import offers_of
from elias.wiring.backends import TRY_AGAIN_S, Backends
from elias.wiring.offers import list_offers
from elias_trainer.contract import TINY, BaseModel, Recipe


@pytest.fixture(autouse=True)
def a_machine_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "AWS_PROFILE", "AWS_ACCESS_KEY_ID",
                 "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "kaggle"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws" / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws" / "credentials"))


def places(tmp_path: Path, **configured: dict[str, object]) -> Backends:
    return Backends(Config(home=tmp_path / "home", backends=configured))


def test_without_any_credentials_it_is_this_machine_alone(tmp_path: Path) -> None:
    assert list(places(tmp_path)(HYBRID)) == ["local"]


def test_aws_is_in_once_boto3_finds_credentials_and_a_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert "sagemaker" not in places(tmp_path)(HYBRID)
    shared = tmp_path / "aws" / "credentials"
    shared.parent.mkdir()
    shared.write_text("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = example\n")
    assert list(places(tmp_path)(HYBRID)) == ["local", "sagemaker"]


def test_half_a_key_is_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    assert "sagemaker" not in places(tmp_path)(HYBRID)


def test_what_is_configured_is_in_whatever_it_finds(tmp_path: Path) -> None:
    assert "sagemaker" in places(tmp_path, sagemaker={"region": "us-east-1"})(HYBRID)


def test_a_configured_place_that_cannot_be_made_does_not_stop_the_others(tmp_path: Path) -> None:
    readable = tmp_path / "kaggle" / "kaggle.json"
    readable.parent.mkdir()
    readable.write_text("{}")
    readable.chmod(stat.S_IRUSR | stat.S_IRGRP)
    found = places(tmp_path, kaggle={}, lab={"kind": "moon"})
    assert list(found(HYBRID)) == ["local"] and set(found.unmade()) == {"kaggle", "lab"}
    assert "can be read by others" in found.unmade()["kaggle"].what
    readable.chmod(stat.S_IRUSR)
    failed_at, error = found.failed["kaggle"]
    found.failed["kaggle"] = failed_at - TRY_AGAIN_S, error  # a minute later
    found(HYBRID)
    assert "can be read by others" not in getattr(found.unmade().get("kaggle"), "what", "")


def test_a_worker_that_has_not_joined_yet_is_left_out_and_the_others_are_asked(tmp_path: Path) -> None:
    found = places(tmp_path, worker={"url": "https://node.example:8443"})(HYBRID)
    need = Need(base=BaseModel(reference=TINY), recipe=Recipe(max_steps=1), label=Label.PUBLIC, corpus_bytes=1)
    offers = [offer for offer, _ in offers_of(found, need, SystemClock().now())]
    assert [(offer.backend, offer.refused is None) for offer in offers] == [("local", True), ("worker", False)]
    assert "no worker has joined (fix: elias worker token" in (offers[1].refused or "")


def test_a_segment_at_a_place_that_is_not_ready_any_more_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AWS region"):
        places(tmp_path)(HYBRID)["sagemaker"]
    with pytest.raises(NotFound, match="no backend"):
        places(tmp_path)(HYBRID)["nowhere"]


def test_a_place_asked_for_by_name_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AWS region"):
        places(tmp_path)("sagemaker")


def test_a_place_that_hybrid_is_to_do_without_is_left_out_told_and_still_there_by_name(tmp_path: Path) -> None:
    config = Config(home=tmp_path / "home", training=Training(hybrid_without=("local",)))
    found = Backends(config)
    assert list(found(HYBRID)) == [] and list(found("local")) == ["local"]
    assert found(HYBRID)["local"] is found.made["local"], "a segment that is under way there is looked after"
    wanted = Wanted(strategy=HYBRID, base=BaseModel(reference=TINY), recipe=Recipe(max_steps=1))
    listed = {place.backend: place for place in list_offers(config, wanted, None, timedelta(minutes=10)).places}
    assert "training.hybrid_without" in (listed["local"].left_out or "") and listed["local"].rows
    assert listed["kaggle"].left_out is None


def test_leaving_out_a_place_that_there_is_not_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="locl"):
        Backends(Config(home=tmp_path, training=Training(hybrid_without=("locl",))))(HYBRID)
