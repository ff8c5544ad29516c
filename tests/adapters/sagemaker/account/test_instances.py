"""The shipped table: every row has a source, and says what AWS's own model calls the type."""

import botocore.session
import pytest

from elias.adapters.backends.sagemaker.instances import instance, table, training_image
from elias.errors import ConfigError
from elias.units import Money

ROWS = table().instances.values()


def test_aws_knows_every_type_of_the_table():
    model = botocore.session.get_session().get_service_model("sagemaker")
    assert set(table().instances) <= set(model.shape_for("TrainingInstanceType").enum)


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.name)
def test_a_row_has_a_price_a_source_and_no_more_memory_than_its_name_says(kind):
    assert kind.source
    assert Money.usd("0.05") < kind.hourly < Money.usd(100)
    assert (kind.gpus == 0) == (kind.gpu is None) == (kind.gpu_memory_bytes == 0)


def test_a_key_for_the_volume_is_refused_by_all_gpu_types_but_p3():
    assert [kind.name for kind in ROWS if kind.gpus and not kind.has_nvme] == ["ml.p3.2xlarge"]


def test_turing_and_volta_have_no_bfloat16():
    assert {kind.family for kind in ROWS if kind.gpus and not kind.has_bf16} == {"g4dn", "p3"}


@pytest.mark.parametrize(
    ("region", "begins"),
    [
        ("us-east-1", "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-training:"),
        ("me-south-1", "217643126080.dkr.ecr.me-south-1.amazonaws.com/"),
        ("cn-north-1", "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/"),
    ],
)
def test_the_image_lies_in_the_registry_of_its_region(region, begins):
    assert training_image(region, instance("ml.g5.xlarge")).startswith(begins)


def test_a_cpu_type_gets_an_image_without_cuda():
    assert "-cpu-" in training_image("eu-west-1", instance("ml.m5.large"))


def test_an_unknown_region_and_an_unknown_type_are_refused_with_what_helps():
    with pytest.raises(ConfigError) as region:
        training_image("mars-north-1", instance("ml.g5.xlarge"))
    assert "image" in region.value.fix
    with pytest.raises(ConfigError) as kind:
        instance("ml.g5.huge")
    assert "ml.g5.xlarge" in kind.value.fix
