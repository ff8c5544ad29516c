"""Starts an engine as a child process that cannot outlive the node, and ends it.

The child's standard input is a pipe whose other end only the node holds: when the node is gone, however it went, the
pipe closes and the child ends. As a program, this module ties itself to that pipe and then becomes the module it is
given: `python -m elias.adapters.engines.child MODULE ARGUMENTS…`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import runpy
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elias.errors import EngineError
from elias.ports.inference import Endpoint

KEY_VARIABLE = "ELIAS_ENGINE_KEY"
"""Where the child finds its API key: not on the command line, which every user of the machine can read."""

_STOP_S = 3.0
_LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What a child runs: once it answers it writes a JSON line with its `url` to the descriptor after `--ready-fd`."""

    module: str
    arguments: Sequence[str]
    folder: Path
    """Its working folder."""
    log: Path
    start_within_s: float
    environment: Mapping[str, str] = field(default_factory=dict)


class Children:
    """The engines that this process has started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, program: Program) -> Endpoint:
        """Return once it says that it answers. Raises EngineError with the end of its log; nothing is left running."""
        key = secrets.token_urlsafe(32)
        process, ready = _spawn(program, key)
        try:
            url = _read_ready(ready, program.start_within_s)
        except BaseException:
            _end(process)
            raise
        finally:
            os.close(ready)
        if url is None:
            code = process.poll()
            _end(process)
            how = (
                f"it did not answer within {program.start_within_s:.0f} s" if code is None else f"it ended with {code}"
            )
            raise EngineError(f"the engine did not start: {how}\n{_tail(program.log)}", fix=f"read {program.log}")
        with self._lock:
            self._running[process.pid] = process
        return Endpoint(url=url, api_key=key, process=process.pid)

    def is_alive(self, endpoint: Endpoint) -> bool:
        with self._lock:
            process = self._running.get(endpoint.process)
        return process is not None and process.poll() is None

    def stop(self, endpoint: Endpoint) -> None:
        with self._lock:
            process = self._running.pop(endpoint.process, None)
        if process is not None:
            _end(process)


def _spawn(program: Program, key: str) -> tuple[subprocess.Popen[bytes], int]:
    program.log.parent.mkdir(parents=True, exist_ok=True)
    program.folder.mkdir(parents=True, exist_ok=True)
    ready, ready_child = os.pipe()
    command = [sys.executable, "-P", "-m", __name__, program.module, *program.arguments]
    try:
        with program.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--ready-fd", str(ready_child)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=program.folder,
                env={**os.environ, **program.environment, KEY_VARIABLE: key},
                pass_fds=(ready_child,),
                start_new_session=True,  # Ctrl-C in the node's terminal is the node's to handle
            )
    except OSError as error:
        os.close(ready)
        raise EngineError(
            f"the engine could not be started: {error}", fix="`elias doctor` says what is short"
        ) from error
    finally:
        os.close(ready_child)
    return process, ready


def _read_ready(descriptor: int, within_s: float) -> str | None:
    """The address it answers at; None when it ended or the time is up."""
    deadline, line = time.monotonic() + within_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while b"\n" not in line:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return None
            chunk = os.read(descriptor, 4096)
            if not chunk:
                return None
            line += chunk
    return str(json.loads(line)["url"])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            return stream.read().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _tie_to_parent() -> None:
    """End when standard input closes.

    The kernel's SIGIO ends the process even while a model loads under Python's lock (Linux); the thread does it
    wherever that signal is not sent, as soon as it can run.
    """
    with contextlib.suppress(OSError):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_end_at_eof, name="parent-watch", daemon=True).start()


def _end_at_eof() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    _tie_to_parent()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
