"""The seed's Kaggle calls, each to its end on the emulated Kaggle: the real trainer, sealed data, a signed model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.config import load
from elias.domain.run import Run
from elias.errors import ConfigError, InputError, NotFound
from elias.testing.kaggle_emulator import KaggleEmulator
from elias.testing.waiting import wait_for_end
from elias.urm import CloudTraining
from elias.wiring.attest import make_node
from elias.wiring.train import open_training

CODE = "".join(f'def f{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(8))
OWN_LINE = "print('a line that ada wrote')"


@pytest.fixture
def emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleEmulator]:
    with KaggleEmulator(tmp_path / "emulated") as emulated:
        home = tmp_path / "home"
        home.mkdir()
        place = f'[backends.kaggle]\nbase_url = "{emulated.url}"\npoll_every = "1s"\n'
        (home / "config.toml").write_text(f'[training]\nbase = "tiny"\nthreads = 2\n\n{place}')
        for name, text in (
            ("ELIAS_HOME", str(home)),
            ("KAGGLE_CONFIG_DIR", str(tmp_path)),
            ("KAGGLE_USERNAME", "ada"),
            ("KAGGLE_KEY", "k"),
        ):
            monkeypatch.setenv(name, text)
        monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
        make_node(load())
        yield emulated


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "m.py").write_text(CODE)
    return tmp_path / "m.py"


def carried(run_id: str) -> Run:
    """As the node does it."""
    with open_training(load()) as training:
        training.launch()
        return wait_for_end(training.stores.runs, run_id)


@pytest.mark.slow
def test_a_job_with_a_template_of_ones_own_comes_home_as_a_valid_model(
    emulated: KaggleEmulator, data: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(f"{OWN_LINE}\n{as_script(template_text())}")
    run = carried(CloudTraining.submit_kaggle_job(data, mine))
    [pushed] = emulated.disk.requests("SaveKernel")
    assert OWN_LINE in pushed["body"]["text"]
    address = f"kaggle://ada/{pushed['body']['slug'].rpartition('/')[2]}"
    adapter = CloudTraining.download_trained_model(address)
    assert (adapter / "adapter_model.safetensors").is_file()
    assert run.artifact is not None
    assert CloudTraining.validate_cloud_model(adapter.parent, run.artifact)


def test_what_cannot_be_submitted_begins_nothing(emulated: KaggleEmulator, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no notebook template .*absent"):
        CloudTraining.submit_kaggle_job(data, tmp_path / "absent.ipynb")
    (tmp_path / "torn.py").write_text("print('{{SEGMENT}}')")
    with pytest.raises(ConfigError, match=r"torn\.py has no \{\{DATASET\}\}"):
        CloudTraining.submit_kaggle_job(data, tmp_path / "torn.py")
    with open_training(load()) as training:
        assert training.stores.runs.list() == []
    assert emulated.disk.requests() == []


@pytest.mark.parametrize(("address", "error"), [("kaggle://ada/nothing-there", NotFound), ("kaggle:ada", InputError)])
def test_a_model_that_is_not_there_is_not_downloaded(
    emulated: KaggleEmulator, address: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        CloudTraining.download_trained_model(address)
