"""`[budget]`: money is written with its currency, and `none` lifts a cap."""

from __future__ import annotations

from pathlib import Path

import pytest

from elias.config import load
from elias.errors import ConfigError
from elias.units import Money


def budget_of(home: Path, line: str, **environment: str):
    (home / "config.toml").write_text(f"[budget]\n{line}\n")
    return load(environment={"ELIAS_HOME": str(home), **environment}).budget


@pytest.mark.parametrize(
    ("line", "cap"),
    [
        ("day = '5usd'", Money.usd(5)),
        ("day = '$0.50'", Money.usd("0.5")),
        ("day = '0usd'", Money(0)),
        ("day = 'none'", None),
        ("", None),
    ],
)
def test_a_cap_is_read(tmp_path, line, cap):
    assert budget_of(tmp_path, line).day == cap


def test_the_environment_is_stronger(tmp_path):
    assert budget_of(tmp_path, "day = '5usd'", ELIAS_BUDGET_DAY="2usd").day == Money.usd(2)


@pytest.mark.parametrize("value", ["5", "5.5", "'five'", "'-1usd'", "true", "'5eur'", "['5usd']"])
def test_what_is_no_money_is_refused_with_its_line_and_an_example(tmp_path, value):
    with pytest.raises(ConfigError, match=r"config\.toml:2: budget\.day is") as raised:
        budget_of(tmp_path, f"day = {value}")
    assert raised.value.fix == 'write day = "5usd"'
