"""A home and the commands typed in it, as a person would: what the kill benches are made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 600.0
_HOME = "ELIAS_HOME"


@dataclass(frozen=True, kw_only=True)
class Shell:
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`elias WORDS`, its answer and its progress into pipes of their own."""
        command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
        return subprocess.Popen(
            command,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **self.environment, _HOME: str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, answer, progress."""
        with self.start(*words) as child:
            try:
                out, err = child.communicate(timeout=PATIENCE_S)
            except BaseException:
                child.kill()
                raise
        return child.returncode, out, err

    def answer(self, *words: str, allowed: Sequence[int] = (0,)) -> Any:
        """What a command says with --json. Raises RuntimeError when it leaves with another exit code."""
        code, out, err = self.run(*words, "--json")
        if code not in allowed:
            raise RuntimeError(f"elias {' '.join(words)} left with {code}: {err.strip()[-1500:]}")
        return json.loads(out)

    def processes(self) -> list[psutil.Process]:
        """All that live in this home: by their command line or by their environment."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def left_running(self, within_s: float = 60.0) -> list[str]:
        """The command lines of those that do not end by themselves."""
        deadline = time.monotonic() + within_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [" ".join(words)[:200] for process in left if (words := words_of(process))]

    def kill_all(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it ended just now, or with one of the others
                process.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            home = str(self.home)
            return process.environ().get(_HOME) == home or any(home in word for word in process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none for one that ended just now."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def some_code(path: Path, functions: int = 60) -> Path:
    """A source file of short documented functions, the same at every call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bodies = (f'def add_{n}(x):\n    """Add {n}."""\n    return x + {n}\n' for n in range(functions))
    path.write_text("\n\n".join(bodies))
    return path


def until(is_so: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within_s:.0f} s in vain for {what}")
        time.sleep(0.02)
