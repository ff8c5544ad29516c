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


def hybrid(capsys: pytest.CaptureFixture[str]) -> dict[str, str | None]:
    capsys.readouterr()
    assert run_command("elias", "doctor", "doctor", ["--json"]) == 0
    return {s["name"]: s for s in json.loads(capsys.readouterr().out)["strategies"]}["hybrid"]


def test_hybrid_is_ready_with_this_machine_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("elias", "doctor", "doctor", []) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hybrid")]
    assert line.split(maxsplit=2) == ["hybrid", "ready", "with this machine alone so far"]
    assert hybrid(capsys)["needs"] is None


def test_hybrid_without_any_place_that_it_may_go_to_is_not_ready(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir(parents=True)
    (home / "config.toml").write_text('[training]\nhybrid_without = ["local"]\n')
    found = hybrid(capsys)
    assert "none besides local" in (found["needs"] or "") and found["fix"]
    (home / "config.toml").write_text('[training]\nhybrid_without = ["nowhere"]\n')
    assert "nowhere" in (hybrid(capsys)["needs"] or "")


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
