"""The commands, as processes, as a person would type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from elias.cli.shell import run_command


@pytest.fixture
def elias(tmp_path):
    """Runs the program with a home of its own; the answer has returncode, stdout and stderr."""

    def run(*arguments: object, home=tmp_path / "home", **environment: str):
        command = [sys.executable, "-c", "from elias.cli import main; main()", *map(str, arguments)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ELIAS_")}
        kept |= {"ELIAS_HOME": str(home), **environment}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=kept)

    return run


@pytest.fixture
def here(admitted, monkeypatch):
    """The same in this process, at the node that holds one model: quicker where the process is not the point."""
    monkeypatch.setenv("ELIAS_HOME", str(admitted.parents[2]))
    return lambda command, *arguments: run_command("elias", command, command, list(map(str, arguments)))


def test_init_makes_a_node_once_and_says_so(elias, tmp_path):
    first = elias("init")
    assert first.returncode == 0, first.stderr
    home = tmp_path / "home"
    assert home.stat().st_mode & 0o777 == 0o700
    assert "is a node" in first.stdout
    assert "Keep a copy" in first.stderr
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and ".db" not in path.name}
    again = elias("init")
    assert again.returncode == 0
    assert "already; nothing was changed" in again.stdout
    assert {path: path.read_bytes() for path in before} == before
    told = json.loads(elias("init", "--json").stdout)
    assert told["made"] == []
    assert told["key_id"] in first.stdout
    shown = json.loads(elias("config", "show", "--json").stdout)
    assert {setting["origin"] for setting in shown} == {"ELIAS_HOME", "default"}


def test_a_home_that_cannot_be_made_is_said(elias, tmp_path):
    (tmp_path / "file").touch()
    done = elias("init", home=tmp_path / "file" / "home")
    assert done.returncode == 2
    assert "fix: set ELIAS_HOME" in done.stderr


def test_a_lost_seed_is_not_silently_replaced(elias, tmp_path):
    elias("init")
    (tmp_path / "home" / "identity" / "seed").unlink()
    done = elias("init")
    assert done.returncode == 2
    assert "put back your copy" in done.stderr
    assert not (tmp_path / "home" / "identity" / "seed").exists()


def test_a_wrong_setting_stops_a_command_with_its_line(elias, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("[node]\nprot = 1\n")
    done = elias("config", "show")
    assert done.returncode == 2
    assert "config.toml:2" in done.stderr
    assert "did you mean node.port?" in done.stderr


def test_config_path_names_the_file(elias, tmp_path):
    assert elias("config", "path").stdout.strip() == str(tmp_path / "home" / "config.toml")


def test_config_show_masks_secrets(elias, tmp_path):
    (tmp_path / "home").mkdir()
    text = '[store]\nurl = "postgresql://me:hush@host/db"\n[backends.kaggle]\napi_token = "hush"\n'
    (tmp_path / "home" / "config.toml").write_text(text)
    done = elias("config", "show")
    assert "hush" not in done.stdout + done.stderr
    assert "postgresql://me:***@host/db" in done.stdout


def test_importing_the_commands_imports_nothing_heavy():
    heavy = ("cryptography", "sqlalchemy", "pydantic", "numpy", "model_signing")
    modules = "elias.cli.init, elias.cli.export, elias.cli.model_files"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_is_exported_and_its_proofs_go_along(here, tmp_path, capsys):
    assert here("export", "latest", "--out", tmp_path / "out") == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter", "model.sig", "receipt.dsse.json"]
    assert here("export", "latest", "--out", tmp_path / "out") == 2
    assert "not empty" in capsys.readouterr().err
    assert here("export", "nope", "--out", tmp_path / "other") == 3


@pytest.fixture
def model(here, monkeypatch):
    """`elias model` with the part that is tested here alone."""
    from types import ModuleType

    import typer

    from elias.cli import model_files

    alone = ModuleType("elias.cli.model_files_alone")
    alone.app = typer.Typer(no_args_is_help=True)
    model_files.add_to(alone.app)
    monkeypatch.setitem(sys.modules, alone.__name__, alone)
    return lambda *arguments: here("model_files_alone", *arguments)


def test_models_are_listed_shown_and_verified(model, admitted, capsys):
    assert model("list") == 0
    assert admitted.name[:12] in capsys.readouterr().out
    assert model("show") == 0
    shown = capsys.readouterr().out
    assert "3.000 -> 2.000" in shown
    assert "elsewhere" in shown
    assert model("verify", admitted.name[:6]) == 0
    assert "is what it claims to be" in capsys.readouterr().out
    assert model("verify", admitted, "--json") == 0
    assert json.loads(capsys.readouterr().out)["digest"] == f"sha256:{admitted.name}"


def test_a_damaged_model_ends_with_exit_code_4_and_the_files_name(model, admitted, capsys):
    (admitted / "adapter" / "adapter_config.json").write_text("{}")
    assert model("verify") == 4
    assert "adapter_config.json was changed" in capsys.readouterr().err
    assert model("verify", "--json") == 4
    assert json.loads(capsys.readouterr().err)["error"] == "DigestMismatch"


def test_a_model_that_is_not_there_ends_with_exit_code_3(model, capsys):
    assert model("verify", "ffffffff") == 3
    assert model("verify", "./nowhere") == 3
