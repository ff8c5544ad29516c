import json
from pathlib import Path

import pytest

from elias.cli.shell import run_command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "kaggle"))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_doctor_names_the_machine_its_tier_and_every_installed_place(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("elias", "doctor", "doctor", ["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_bytes"] > 0
    assert found["tier"]["name"] in ("client (Tier 1)", "minimum", "recommended", "high-end")
    strategies = {strategy["name"]: strategy for strategy in found["strategies"]}
    assert strategies["local"]["needs"] is None
    assert {"local", "kaggle", "hybrid"} <= strategies.keys()


def test_a_place_without_credentials_says_what_to_do(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("elias", "doctor", "doctor", []) == 0
    printed = capsys.readouterr().out
    assert "kaggle.com/settings" in printed and "not yet" in printed


def test_a_setting_that_is_wrong_is_said_in_its_place(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir(parents=True)
    (home / "config.toml").write_text('[backends.local]\nthreads = "many"\n')
    assert run_command("elias", "doctor", "doctor", ["--json"]) == 0
    strategies = {s["name"]: s for s in json.loads(capsys.readouterr().out)["strategies"]}
    assert "threads" in strategies["local"]["needs"] and strategies["local"]["fix"]
