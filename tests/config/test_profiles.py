"""A profile's presets: weaker than anything that was set, each with its origin, written into a file one can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from elias.cli.init import app
from elias.config import Config, load
from elias.config.default_file import file_for
from elias.domain.label import Label
from elias.domain.profile import PROFILES
from elias.errors import ConfigError, Refused
from elias.units import FREE, Money


def written(home: Path, text: str, **environment: str) -> Config:
    (home / "config.toml").write_text(text)
    return load(environment={"ELIAS_HOME": str(home), **environment})


@pytest.mark.parametrize("name", PROFILES)
def test_each_preset_is_a_setting_that_is_taken_and_its_origin_is_the_profile(tmp_path: Path, name: str):
    config = written(tmp_path, f'profile = "{name}"\n')
    assert config.profile == name and config.origins["profile"] == "config.toml:1"
    own = {setting for setting, origin in config.origins.items() if origin == f"profile {name}"}
    assert own == set(PROFILES[name].settings)
    assert config.capture.label in (Label.PRIVATE, Label.SECRET), "no preset lets data out readable"


def test_one_person_spends_nothing_and_the_others_never_more_than_a_months_cap(tmp_path: Path):
    budgets = {name: written(tmp_path, f'profile = "{name}"\n').budget for name in PROFILES}
    assert budgets["individual"].account == FREE and budgets["individual"].run is None
    assert (budgets["small-business"].month, budgets["research"].month) == (Money.usd(100), Money.usd(2000))
    for budget in (budgets["small-business"], budgets["research"]):
        assert budget.run and budget.day and budget.month and budget.run <= budget.day <= budget.month


def test_the_gate_of_each_profile_is_as_strict_as_what_depends_on_it(tmp_path: Path):
    levels = [written(tmp_path, f'profile = "{name}"\n').gate.level for name in PROFILES]
    assert levels == sorted(levels) and len(set(levels)) == 3


def test_whatever_is_set_beats_the_profile(tmp_path: Path):
    text = 'profile = "small-business"\n[budget]\nmonth = "7usd"\n'
    config = written(tmp_path, text, ELIAS_GATE_LEVEL="0.8", ELIAS_PROFILE="research")
    assert (config.budget.month, config.origins["budget.month"]) == (Money.usd(7), "config.toml:3")
    assert (config.gate.level, config.origins["gate.level"]) == (0.8, "ELIAS_GATE_LEVEL")
    assert (config.profile, config.origins["budget.day"]) == ("research", "profile research")


def test_a_profile_nobody_knows_is_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(ConfigError, match="individual, small-business, research") as caught:
        written(tmp_path, 'profile = "enterprise"\n')
    assert caught.value.fix == 'write profile = "individual"'


@pytest.mark.parametrize("name", PROFILES)
def test_init_writes_the_profile_and_shows_each_of_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path / "home"))
    assert CliRunner().invoke(app, ["--profile", name]).exit_code == 0
    text = (tmp_path / "home" / "config.toml").read_text()
    config = load()
    assert config.profile == name
    assert text == file_for(name) and text.count(f"   # {name}") == len(PROFILES[name].settings)
    uncommented = [line.removeprefix("# ") if line.endswith(f"   # {name}") else line for line in text.split("\n")]
    same = written(tmp_path, "\n".join(uncommented))
    assert (same.budget, same.gate, same.serving, same.judge) == (
        config.budget,
        config.gate,
        config.serving,
        config.judge,
    )


def test_init_leaves_a_file_that_is_there_alone_and_says_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ELIAS_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("# mine\n")
    done = CliRunner().invoke(app, ["--profile", "research"])
    assert isinstance(done.exception, Refused) and 'profile = "research"' in done.exception.fix
    assert (tmp_path / "config.toml").read_text() == "# mine\n"
