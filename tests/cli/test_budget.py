"""`elias budget`: caps are set in the file, shown with what counts against them, and bad input is one clear error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elias.config import Config
from elias.domain.spend import COMPUTE, Caps, Claim, Part
from elias.testing.nouns import NOON, a_run
from elias.units import Money
from elias.wiring.stores import open_stores

FILE = "# my node\n[budget]\n# day = '5usd'  # not yet\nmonth = '50usd'  # agreed\n\n[node]\nname = 'attic'\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(FILE)
    return tmp_path


def elias(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ELIAS_HOME": str(home)}
    command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_cap_is_set_in_the_file_shown_and_lifted_and_comments_stay(home):
    assert elias(home, "budget", "set", "day", "$2.50").returncode == 0
    text = (home / "config.toml").read_text()
    assert 'day = "2.50usd"' in text and "# my node" in text and "# agreed" in text and "# day = '5usd'" in text
    with open_stores(Config(home=home)) as stores:
        stores.runs.add(a_run())
        claim = Claim(key="run-1-0001", run="run-1", backend="rented")
        stores.spend.reserve(claim, [Part(name=COMPUTE, amount=Money.usd(1))], Caps(), NOON)
    shown = json.loads(elias(home, "budget", "show", "--json").stdout)["overview"]
    day = next(cap for cap in shown["caps"] if cap["name"] == "day")
    assert (day["limit"], day["reserved"], day["left"]) == (2_500_000, 1_000_000, 1_500_000)
    assert shown["open"][0]["claim"]["key"] == "run-1-0001"
    table = elias(home, "budget", "show")
    assert "$2.50" in table.stdout and "run-1-0001 holds $1.00" in table.stderr
    assert elias(home, "budget", "set", "day", "none").returncode == 0
    assert json.loads(elias(home, "budget", "show", "--json").stdout)["overview"]["caps"][0]["limit"] is None


def test_the_budget_of_one_run_is_raised_where_it_stands(home):
    with open_stores(Config(home=home)) as stores:
        stores.runs.add(a_run())
    assert elias(home, "budget", "set", "run-1", "30usd").returncode == 0
    with open_stores(Config(home=home)) as stores:
        assert stores.runs.get("run-1").bounds.budget == Money.usd(30)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("set", "day", "five"), 2, "'five' is not an amount of money"),
        (("set", "day", "--", "-5usd"), 2, "below zero"),
        (("set", "week", "5usd"), 3, "week"),
        (("reconcile", "--days", "0"), 2, "--days"),
    ],
)
def test_bad_input_is_one_error_and_changes_nothing(home, words, code, said):
    ran = elias(home, "budget", *words)
    assert ran.returncode == code and said in ran.stderr and "Traceback" not in ran.stderr
    assert (home / "config.toml").read_text() == FILE


def test_with_no_paid_backend_there_is_no_bill(home):
    ran = elias(home, "budget", "reconcile", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout) == {"compared": [], "not_asked": {}}
