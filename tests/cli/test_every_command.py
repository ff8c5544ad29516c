"""Every command: `--json`, its options as people know them, and both names of the program.

After a change that is meant: python tests/cli/test_every_command.py writes the golden files anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main

from elias.cli import COMMANDS, _help
from elias.cli.status import words

GOLDEN = Path(__file__).parent / "golden"
SEED_COMMANDS = ("train", "status", "generate", "deploy", "export", "metrics")


def all_commands() -> Iterator[tuple[str, list[str]]]:
    """`run list` and the names of its options and arguments, for each command that is not hidden."""
    for word, (module, _) in COMMANDS.items():
        app = import_module(f"elias.cli.{module}").app
        if isinstance(app, typer.Typer):
            yield from walk(word, typer.main.get_command(app))
        else:  # `status`, which does without typer
            yield word, [name for action in words(word)._actions for name in action.option_strings if name != "-h"]


def walk(path: str, command: Any) -> Iterator[tuple[str, list[str]]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from walk(f"{path} {name}", inner)
        return
    options = [name for p in command.params for name in (*p.opts, *p.secondary_opts)]
    yield path, [name.upper() if not name.startswith("-") else name for name in options]


def snapshot() -> str:
    return "".join(f"{path}: {' '.join(sorted({*found} - {'--help'}))}\n" for path, found in all_commands())


def test_every_command_answers_in_json():
    assert [path for path, options in all_commands() if "--json" not in options] == []


def test_the_help_of_the_program_is_the_golden_one():
    assert _help("elias") + "\n" == (GOLDEN / "help.txt").read_text(), __doc__


def test_the_options_of_every_command_are_the_golden_ones():
    assert snapshot() == (GOLDEN / "options.txt").read_text(), __doc__


@pytest.mark.parametrize("program", ["elias", "uff_cli"])
def test_both_names_are_one_program(program: str, tmp_path: Path):
    def run(*typed: str) -> subprocess.CompletedProcess[str]:
        # bare of the packages' scripts: what a console script does, under either name
        code = f"import sys; sys.argv[0] = '/bin/{program}'; from elias.cli import main; main()"
        environment = {**os.environ, "ELIAS_HOME": str(tmp_path / "home")}
        return subprocess.run([sys.executable, "-c", code, *typed], env=environment, capture_output=True, text=True)

    assert run("--help").stdout == _help(program) + "\n" and run().returncode == 0
    assert run("--version").stdout.startswith(f"{program} ")
    unknown = run("statsu")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert f"did you mean status?\n  fix: {program} --help" in unknown.stderr
    wrong = run("status", "--wrong")
    assert wrong.returncode == 2 and f"fix: {program} status --help" in wrong.stderr
    assert run("status").stdout == "no node is up; start it: elias up\n"


def test_the_command_line_of_the_seed_system_is_all_there():
    found = dict(all_commands())
    assert set(SEED_COMMANDS) <= set(found)
    assert "--strategy" in found["train"]


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "help.txt").write_text(_help("elias") + "\n")
    (GOLDEN / "options.txt").write_text(snapshot())
