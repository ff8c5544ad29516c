"""What the demos share: commands as a person would type them, each line of what they print marked as emulated."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elias.errors import BackendError

SOURCES = ("heapq.py", "bisect.py")
HIDDEN = ("KAGGLE_", "ELIAS_", "AWS_")
"""No credentials of the person who looks: nothing of a demo leaves the machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What the person who looks has chosen."""

    base: str
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    place: Path
    account: Mapping[str, str]
    """Environment variables of the emulated account."""

    def to_a_corpus(self) -> None:
        """A node, some of Python's own code captured, and a corpus of it."""
        library = Path(sysconfig.get_path("stdlib"))
        self.run("init")
        for source in SOURCES:
            self.run("capture", "code", str(library / source))
        self.run("corpus", "build")

    def run(self, *words: str) -> None:
        """One command. Raises BackendError when it fails."""
        say(f"$ elias {' '.join(words)}")
        command = [sys.executable, "-c", "from elias.cli import main; main()", *words]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._environment()
        ) as process:
            for line in process.stdout or ():
                say(f"  {line.rstrip()}")
        if process.returncode:
            raise BackendError(
                f"emulated: that command left with exit code {process.returncode}",
                fix="its own lines above say why (emulated)",
            )

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(HIDDEN)}
        own = {"ELIAS_HOME": str(self.place / "node"), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        return kept | dict(self.account) | own


def say(line: str) -> None:
    print(f"emulated | {line}", flush=True)


@contextmanager
def meanwhile(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """`act` in a thread of its own beside the walk, until its event is set."""
    over = threading.Event()
    thread = threading.Thread(target=act, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
