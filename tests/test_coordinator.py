"""The seed's `run_training_cycle`: the real trainer on `tiny`, then what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from elias.config import load
from elias.coordinator import Cycle, run_training_cycle
from elias.domain.artifact import Artifact
from elias.errors import InputError, NotFound
from elias.urm import CloudTraining
from elias.wiring.attest import make_node

CODE = "".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ELIAS_TRAINING_THREADS", "2")
    (tmp_path / "m.py").write_text(CODE)
    return tmp_path / "m.py"


def test_a_cycle_ends_with_a_signed_model_that_the_resource_manager_validates(data: Path) -> None:
    make_node(load())
    artifact = run_training_cycle(data, "local", Cycle(base="tiny", steps=2))
    assert isinstance(artifact, Artifact) and artifact.base_reference == "tiny"
    folder = load().home / "artifacts" / "sha256" / artifact.digest.hex
    assert CloudTraining.validate_cloud_model(folder, artifact.digest)


def test_a_strategy_nobody_knows_begins_nothing(data: Path) -> None:
    with pytest.raises(NotFound, match="moon"):
        run_training_cycle(data, "moon", Cycle(base="tiny", steps=1))


def test_data_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        run_training_cycle(data.with_name("absent"), "local", Cycle(base="tiny", steps=1))
