"""The command line, `elias` and `uff_cli`: one program under two names.

Only the table of commands is read at start; a command's module, and what it imports, waits until it is called.
"""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS: dict[str, tuple[str, str]] = {
    # word: (module under elias.cli, summary)
    "init": ("init", "Make this machine a node: a home, an identity, a configuration."),
    "doctor": ("doctor", "What this machine can do, and what each strategy still needs."),
    "config": ("config", "Show each setting and where its value comes from."),
    "capture": ("capture", "Take in sessions: code, git, chat."),
    "session": ("session", "List, show and label sessions."),
    "corpus": ("corpus", "Build and export a corpus."),
    "offers": ("offers", "What every place offers: price, quota, speed, data."),
    "plan": ("plan", "Where a training run would go, and why not elsewhere."),
    "train": ("train", "Train a model on a corpus."),
    "schedule": ("schedule", "Train by evidence, day or week."),
    "budget": ("budget", "Caps on money, what was spent, and the providers' bills."),
    "run": ("run", "List, show, watch, log, pause, cancel and resume runs."),
    "kaggle": ("kaggle", "Kaggle's free GPU hours: template, key, quota."),
    "aws": ("aws", "SageMaker's account: set-up, check, teardown, sweep."),
    "worker": ("worker", "Machines that can only reach out: token, join, notebook."),
    "demo": ("demo", "A strategy on emulated places: kaggle, sagemaker, hybrid."),
    "model": ("model", "List, verify, judge, deploy and roll back models."),
    "up": ("up", "Start the node: engine, API and gateway."),
    "down": ("down", "Stop the node."),
    "status": ("status", "What is in service, what is training."),
    "chat": ("chat", "Talk to the model in service."),
    "generate": ("generate", "One completion from the model in service."),
    "deploy": ("deploy", "Put a model in service (short for `model deploy`)."),
    "export": ("export", "Write a model's files to a folder."),
    "metrics": ("metrics", "The losses and speeds of a run."),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console scripts; leaves with the exit code of style.md."""
    words = sys.argv[1:] if arguments is None else arguments
    program = "uff_cli" if sys.argv[0].endswith("uff_cli") else "elias"
    if not words or words[0] in ("-h", "--help"):
        print(_help(program))
        sys.exit(0)
    if words[0] == "--version":
        from elias import __version__

        print(f"{program} {__version__}")
        sys.exit(0)
    if words[0] not in COMMANDS:
        print(f"error: no command is called {words[0]!r}{_near(words[0])}\n  fix: {program} --help", file=sys.stderr)
        sys.exit(2)
    run_command = import_module("elias.cli.shell").run_command
    sys.exit(run_command(program, words[0], COMMANDS[words[0]][0], words[1:]))


def _near(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _help(program: str) -> str:
    lines = [f"Usage: {program} COMMAND [ARGUMENTS]", ""]
    lines += [f"  {word:<10} {summary}" for word, (_, summary) in COMMANDS.items()]
    lines += ["", f"`{program} COMMAND --help` says more. Every command takes --json.", "Docs: docs/quickstart.md"]
    return "\n".join(lines)
