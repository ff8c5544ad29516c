"""Runs one command: its answer to stdout, its errors to stderr with a fix, its exit code to the shell."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from elias.errors import EliasError, MissingPackage, UserError

INTERRUPTED = 130
"""As the shell has it: 128 and the number of SIGINT."""


def run_command(program: str, word: str, module: str, arguments: list[str]) -> int:
    """The exit code of style.md: 0 ok, 1 bug, 2 to 5 from the error; of no consequence is a reader that has gone."""
    code = _run(f"{program} {word}", module, arguments)
    let_go_of_stdout()
    return code


def _run(command: str, module: str, arguments: list[str]) -> int:
    wants_json = "--json" in arguments
    try:
        app = import_module(f"elias.cli.{module}").app
        answer = app(args=arguments, prog_name=command, standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except EliasError as error:
        return report(error, wants_json=wants_json)
    except KeyboardInterrupt:
        return _stopped()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("elias"):
            return _bug()
        return report(_missing(error), wants_json=wants_json)
    except SystemExit as stop:  # typer's own answer to a reader that has gone
        return 0 if isinstance(stop.__context__, BrokenPipeError) else _code(stop)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and let_go_of_stdout():
            return 0
        return _parsed_wrong(error, command, wants_json=wants_json)


def report(error: EliasError, *, wants_json: bool) -> int:
    """What happened, what was kept, what to type next; the error's exit code."""
    if wants_json:
        fields = {"error": error.code, "what": error.what, "kept": error.kept, "fix": error.fix}
        print(json.dumps(fields), file=sys.stderr)
        return error.exit_code
    print(f"error: {error.what}", file=sys.stderr)
    if error.kept:
        print(f" kept: {error.kept}", file=sys.stderr)
    print(f"  fix: {error.fix}", file=sys.stderr)
    return error.exit_code


def let_go_of_stdout() -> bool:
    """Whether its reader has gone, as `head` does once it has enough; then nothing more is written to it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _parsed_wrong(error: Exception, command: str, *, wants_json: bool) -> int:
    """What the command line's own library raises: typer, which carries a copy of click, or click itself."""
    for library in _libraries():
        if isinstance(error, library.Exit):
            return int(error.exit_code)
        if isinstance(error, library.Abort):
            return _stopped()
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined] # the group's help
        return 2
    if not any(isinstance(error, library.Wrong) for library in _libraries()):
        return _bug()
    where = getattr(getattr(error, "ctx", None), "command_path", command)
    what = getattr(error, "format_message", lambda: str(error))()
    return report(UserError(" ".join(what.split()).rstrip("."), fix=f"{where} --help"), wants_json=wants_json)


class _Library:
    def __init__(self, module: Any, wrong: str) -> None:
        self.Exit, self.Abort, self.Wrong = module.Exit, module.Abort, getattr(module, wrong)


def _libraries() -> Iterator[_Library]:
    """Only those that a command has imported: neither is needed to say what `elias status` says."""
    for name, wrong in (("typer.exceptions", "TyperException"), ("click.exceptions", "ClickException")):
        if name in sys.modules:
            yield _Library(sys.modules[name], wrong)


def _code(stop: SystemExit) -> int:
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _missing(error: ModuleNotFoundError) -> MissingPackage:
    return MissingPackage(f"this command needs the package {error.name!r}", fix="pip install 'elias-node[node,train]'")


def _stopped() -> int:
    print("stopped; nothing was changed after the last line above", file=sys.stderr)
    return INTERRUPTED


def _bug() -> int:
    traceback.print_exc()
    print("\nThis is a bug in ELIAS. Nothing that was finished is lost.", file=sys.stderr)
    return 1
