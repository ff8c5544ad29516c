"""What stands around every command: usage errors, interruptions, exit codes, a reader that has gone."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import psutil
import pytest
import typer

from elias.cli.output import ask, emit_table
from elias.cli.shell import run_command
from elias.errors import NotFound
from elias.testing.waiting import wait_until

PROBE = "elias.cli.probe"
HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""Whoever is started in the background of a script is born deaf to it."""
TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
MANY = "for n in range(9000): print('a line of some length', n)"


def typer_app(action) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    @app.command()
    def probe(number: int, json: bool = typer.Option(False, "--json")) -> None:
        action()

    return app


def click_app(action) -> click.Command:
    @click.command()
    @click.argument("number", type=int)
    @click.option("--json", is_flag=True)
    def probe(number: int, json: bool) -> None:
        action()

    return probe


@pytest.fixture(params=[typer_app, click_app], ids=["typer", "click"])
def run(request, monkeypatch):
    """Run a command, made by either library, that does `action`."""

    def run(*words: str, action=lambda: None) -> int:
        module = ModuleType(PROBE)
        module.app = request.param(action)
        monkeypatch.setitem(sys.modules, PROBE, module)
        return run_command("elias", "probe", "probe", list(words))

    run.library = (
        typer if request.param is typer_app else SimpleNamespace(Exit=click.exceptions.Exit, Abort=click.Abort)
    )
    return run


@pytest.mark.parametrize("words", [["1", "--wrong"], [], ["one"], ["1", "2"]])
def test_words_that_nobody_understands_are_the_users_to_mend(run, words, capsys):
    assert run(*words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and told.err.endswith("\n  fix: elias probe --help\n")
    assert len(told.err.splitlines()) == 2 and told.out == ""


def test_with_json_a_usage_error_is_json_too(run, capsys):
    assert run("--json", "--wrong") == 2
    told = json.loads(capsys.readouterr().err)
    assert told["error"] == "UserError" and "--wrong" in told["what"] and told["fix"] == "elias probe --help"


def test_exit_abort_ctrl_c_and_errors_have_their_codes(run, capsys):
    def raising(error):
        def action():
            raise error

        return action

    assert run("1") == 0
    assert run("1", action=raising(run.library.Exit(4))) == 4
    assert run("1", action=raising(run.library.Abort())) == 130
    assert run("1", action=raising(KeyboardInterrupt())) == 130
    assert "stopped" in capsys.readouterr().err
    assert run("1", action=raising(NotFound("no such thing", fix="look elsewhere"))) == 3
    assert capsys.readouterr().err == "error: no such thing\n  fix: look elsewhere\n"
    assert run("1", action=raising(ModuleNotFoundError("no", name="sqlalchemy"))) == 2
    assert "'sqlalchemy'" in capsys.readouterr().err
    assert run("1", action=raising(RuntimeError("a slip"))) == 1
    assert "This is a bug in ELIAS" in capsys.readouterr().err


def test_ctrl_c_at_a_question_stops_with_130(tmp_path: Path):
    code, told = typed_at_a_terminal(tmp_path, "ask('Begin?', yes=False)", b"\x03")
    assert code == 130 and "Begin?" in told and "stopped" in told and "Traceback" not in told


def test_no_at_a_question_stops_with_130(tmp_path: Path):
    code, told = typed_at_a_terminal(tmp_path, "ask('Begin?', yes=False)", b"n\n")
    assert code == 130 and "Traceback" not in told


def test_where_nobody_can_answer_a_question_the_fix_is_yes(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run("1", action=lambda: ask("Begin?", yes=False)) == 2
    assert "--yes" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_error():
    script = f"{probe_of(MANY)} | head -1"
    done = subprocess.run(
        ["bash", "-c", f"{script}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a line of some length 0\n0\n" and done.stderr == ""


def test_off_a_terminal_a_table_has_no_spaces_at_the_ends_of_its_lines(capsys):
    emit_table(("name", "much longer"), [("a [bold]b", ""), ("c", "d")], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a [bold]b" and all(line == line.rstrip() for line in lines)


def probe_of(body: str) -> str:
    """A shell command that runs `body` as the command `elias probe`."""
    program = (
        "import sys, types, typer; from elias.cli.output import ask; from elias.cli.shell import run_command; "
        "app = typer.Typer(); app.command()(lambda: exec(sys.argv[1])); "
        f"module = types.ModuleType('{PROBE}'); module.app = app; sys.modules['{PROBE}'] = module; "
        "sys.exit(run_command('elias', 'probe', 'probe', []))"
    )
    return shlex.join([sys.executable, "-c", program, body])


def typed_at_a_terminal(folder: Path, body: str, keys: bytes) -> tuple[int, str]:
    """The exit code and all that was shown, when `keys` are typed at the question."""
    person, terminal = pty.openpty()
    process = subprocess.Popen(
        shlex.split(probe_of(HEED_CTRL_C + TAKE_TERMINAL + body)),
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while b"?" not in shown:
        shown += read(person)
    wait_until(lambda: waits_for_keys(process))
    os.write(person, keys)
    while chunk := read(person):
        shown += chunk
    os.close(person)
    return process.wait(300), shown.decode()


def waits_for_keys(process: subprocess.Popen[bytes]) -> bool:
    """Python's readline does not hear a signal between showing the prompt and waiting for keys."""
    return psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING


def read(descriptor: int) -> bytes:
    """What is shown next; nothing once the other side has closed it."""
    assert select.select([descriptor], [], [], 300)[0], "nothing more is shown"
    try:
        return os.read(descriptor, 1024)
    except OSError:
        return b""
