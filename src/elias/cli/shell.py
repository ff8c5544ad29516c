"""Runs one command: its answer to stdout, its errors to stderr with a fix, its exit code to the shell."""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module

import typer
from typer.exceptions import TyperException

from elias.errors import EliasError, MissingPackage


def run_command(program: str, word: str, module: str, arguments: list[str]) -> int:
    """The exit code of style.md: 0 ok, 1 bug, 2 to 5 from the error."""
    wants_json = "--json" in arguments
    try:
        app = import_module(f"elias.cli.{module}").app
        answer = app(args=arguments, prog_name=f"{program} {word}", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except EliasError as error:
        report(error, wants_json=wants_json)
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        print("stopped; nothing was changed after the last line above", file=sys.stderr)
        return 130
    except TyperException as error:  # a word or an option that nobody knows, a value of another kind
        show = getattr(error, "show", None)
        if show is None:
            print(f"error: {error}\n  fix: {program} {word} --help", file=sys.stderr)
        else:
            show()
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("elias"):
            raise
        missing = MissingPackage(
            f"this command needs the package {error.name!r}", fix="pip install 'elias-node[node,train]'"
        )
        report(missing, wants_json=wants_json)
        return missing.exit_code
    except Exception:
        traceback.print_exc()
        print("\nThis is a bug in ELIAS. Nothing that was finished is lost.", file=sys.stderr)
        return 1


def report(error: EliasError, *, wants_json: bool) -> None:
    """What happened, what was kept, what to type next."""
    if wants_json:
        fields = {"error": error.code, "what": error.what, "kept": error.kept, "fix": error.fix}
        print(json.dumps(fields), file=sys.stderr)
        return
    print(f"error: {error.what}", file=sys.stderr)
    if error.kept:
        print(f" kept: {error.kept}", file=sys.stderr)
    print(f"  fix: {error.fix}", file=sys.stderr)
