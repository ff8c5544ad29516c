"""`elias up`, `status`, `chat`, `generate`, `deploy`, `rollback`, `down`: real processes, the starter on llama.cpp."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from elias.testing.engine_contract import is_running
from elias.testing.ports import free_port
from elias.testing.waiting import wait_until


@dataclass
class Shell:
    home: Path

    def run(self, *words: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
        environment = {**os.environ, "ELIAS_HOME": str(self.home), "OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.run(
            command, env=environment, input=typed or "", capture_output=True, text=True, timeout=900, check=False
        )

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(home=tmp_path / "home")
    yield shell
    shell.run("down")


@pytest.mark.parametrize(
    "words", [["chat", "hi"], ["generate", "hi"], ["deploy", "--yes"], ["model", "rollback", "--yes"]]
)
def test_without_a_node_a_command_says_to_start_one(shell: Shell, words: list[str]) -> None:
    done = shell.run(*words)
    assert done.returncode == 2
    assert done.stderr == "error: no node is up\n  fix: elias up\n"


def test_without_a_node_status_and_down_say_so_and_are_content(shell: Shell) -> None:
    status = shell.run("status")
    assert (status.returncode, status.stdout) == (0, "no node is up; start it: elias up\n")
    assert shell.json("status") == {"node": None, "fix": "elias up"}
    assert shell.json("down") == {"was_up": False}


def test_a_port_in_use_is_named_with_its_process_and_another_port(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = shell.run("up", "--port", str(port))
    assert done.returncode == 2
    assert f"error: port {port} is in use by" in done.stderr and f"process {os.getpid()}" in done.stderr
    assert f"elias up --port {port + 1}" in done.stderr


def test_a_node_goes_up_answers_changes_its_model_and_goes_down(shell: Shell) -> None:
    port = str(free_port())
    up = shell.json("up", "--port", port)
    assert up["in_service"]["model"] == "starter"
    assert stat.S_IMODE((shell.home / "api.key").stat().st_mode) == 0o600

    assert "the node is up already" in shell.run("up").stderr
    assert "in service  starter (llamacpp" in shell.run("status").stdout

    assert shell.run("chat", "Say hello.", "--max-tokens", "8").stdout.strip()
    talk = shell.run("chat", "--max-tokens", "8", typed="Say hello.\n\n/exit\n")
    assert talk.returncode == 0 and talk.stdout.strip()
    assert "talking to starter" in talk.stderr
    whole = shell.json("chat", "Say hello.", "--max-tokens", "8")
    assert whole["choices"][0]["message"]["content"]
    assert shell.run("generate", "def add(a, b):", "--max-tokens", "8").stdout.strip()

    refused = shell.run("model", "rollback", "--yes")
    assert refused.returncode == 4 and "no model was in service before this one" in refused.stderr
    missing = shell.run("deploy", "latest", "--yes")
    assert missing.returncode == 3 and "there is no model yet" in missing.stderr

    processes = [up["process"], up["in_service"]["process"]]
    assert shell.json("down") == {"was_up": True, "elsewhere": []}
    assert not any(is_running(process) for process in processes)
    assert not (shell.home / "node.json").exists()


def test_after_kill_9_no_engine_is_left_and_the_next_up_serves_again(shell: Shell) -> None:
    port = str(free_port())
    first = shell.json("up", "--port", port)
    os.kill(first["process"], signal.SIGKILL)
    wait_until(lambda: not is_running(first["in_service"]["process"]))
    assert shell.run("status").stdout == "no node is up; start it: elias up\n"
    again = shell.json("up", "--port", port)
    assert again["in_service"]["deployment"] == first["in_service"]["deployment"]
    assert again["process"] != first["process"]
