"""`elias kaggle` and `elias run adopt` as typed, against the emulated Kaggle."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest

from elias.testing.kaggle_emulator import KaggleEmulator

Elias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def elias(tmp_path: Path) -> Iterator[Elias]:
    with KaggleEmulator(tmp_path / "emulated") as emulated:
        home = tmp_path / "home"
        home.mkdir()
        (home / "config.toml").write_text(f'[backends.kaggle]\nbase_url = "{emulated.url}"\nhttp_tries = 1\n')
        mine = {"ELIAS_HOME": str(home), "KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "k", "KAGGLE_CONFIG_DIR": str(home)}
        environment = {name: text for name, text in os.environ.items() if not name.startswith("KAGGLE_")} | mine

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)

        yield run


def test_the_template_is_a_notebook_and_with_a_py_ending_a_script(elias: Elias, tmp_path: Path) -> None:
    assert json.loads(elias("kaggle", "template").stdout)["metadata"]["kernelspec"]["name"] == "python3"
    done = elias("kaggle", "template", "--out", str(tmp_path / "mine.py"))
    assert done.returncode == 0 and "[backends.kaggle]" in done.stderr
    compile((tmp_path / "mine.py").read_text(), "mine.py", "exec")


def test_the_key_is_made_once_and_readable_by_its_user_alone(elias: Elias, tmp_path: Path) -> None:
    first, second = (json.loads(elias("kaggle", "key", "--json").stdout) for _ in range(2))
    assert first == second
    assert str(pyrage.x25519.Identity.from_str(first["value"]).to_public()) == first["secret_recipient"]
    assert (tmp_path / "home" / "identity" / "kaggle.key").stat().st_mode & 0o077 == 0


def test_the_quota_is_read_live_and_capped(elias: Elias) -> None:
    found = json.loads(elias("kaggle", "quota", "--json").stdout)
    assert found["allowed"] == 20 * 3600 and found["used"] == 0
    assert "left 20:00:00" in elias("kaggle", "quota").stdout


@pytest.mark.parametrize(
    ("address", "code"), [("kaggle://ada/nothing-there", 3), ("kaggle://ada", 2), ("nowhere://x", 3)]
)
def test_adopting_what_is_not_there_says_so(elias: Elias, address: str, code: int) -> None:
    done = elias("run", "adopt", address)
    assert done.returncode == code and "fix:" in done.stderr, done.stderr


def test_a_base_of_6_7_billion_in_qlora_takes_under_15_gb_of_a_t4_and_lora_takes_both(elias: Elias) -> None:
    words = ("kaggle", "memory", "--base", "deepseek-ai/deepseek-coder-6.7b-instruct", "--gradient-checkpointing")
    qlora = elias(*words, "--method", "qlora")
    assert qlora.returncode == 0 and "fits one T4" in qlora.stdout and "never measured" in qlora.stdout
    found = json.loads(elias(*words, "--method", "qlora", "--json").stdout)
    assert found["cards"] == 1 and found["needs_bytes"] < 15e9
    assert found["needs_bytes"] == sum(found["needs"].values())
    assert "both T4s" in elias(*words, "--method", "lora", "--batch-size", "1").stdout
    full = elias(*words, "--method", "full")
    assert full.returncode == 4 and "--method qlora" in full.stderr
