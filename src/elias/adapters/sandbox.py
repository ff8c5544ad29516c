"""Runs a Python program that nobody has read, such as one that a model has just written.

What holds, on Linux with user namespaces (tested in tests/adapters/test_sandbox.py):
- no network, not even loopback: a network namespace of its own with nothing in it;
- no file of this machine but the Python installation, its packages and the system's libraries, read-only; no home, no
  /proc, no environment; what the program writes goes to a small disk in memory that ends with it;
- no rights: it runs as `nobody` when this process is root, else as this user with nothing of theirs in sight; no
  capability, none to be gained, and no further namespace where /proc/sys can be written;
- bounds on wall-clock and CPU time, memory, disk, processes, open files and output; when time is up, or the program
  ends, everything that it started is killed by the kernel.

What does not hold: the system's calls are not filtered, so a hole in the kernel is a hole here; memory is bounded for
each process, so all together may take `memory_bytes` times `processes`; CPU caches are shared with other programs. It
keeps a careless or a cheating program away from the machine, not a determined attacker with an unknown kernel hole.

Where a wall cannot be built, nothing runs: there is no weaker mode.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from elias.errors import Refused

_JAIL = Path(__file__).with_name("sandbox_jail.py")
_SETUP_FAILED = 97
_MIB = 1 << 20
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store", "/etc/ld.so.cache")


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxLimits:
    seconds: float = 60.0
    """On the wall's clock, the start of two interpreters included; far more than `cpu_seconds`, so that what a busy
    machine makes of a program is what an idle one does."""
    cpu_seconds: int = 5
    memory_bytes: int = 512 * _MIB
    """Of one process."""
    disk_bytes: int = 16 * _MIB
    processes: int = 8
    """And threads, the sandbox's own first process included."""
    open_files: int = 64
    output_bytes: int = _MIB


@dataclass(frozen=True, kw_only=True, slots=True)
class Confined:
    """What came out of a program. Its exit code is its own claim and proves nothing."""

    output: bytes
    """What it wrote to standard output, up to the limit; what it wrote to standard error is gone."""
    exit_code: int
    """Minus a signal's number is not used: a signal is 128 and its number, as in a shell."""
    stopped: str | None
    """`time` or `output` when a bound ended it; a bound on CPU time or memory shows in the exit code."""


def run_confined(program: str, limits: SandboxLimits | None = None) -> Confined:
    """Run the text of a Python program; `packages()` are there but not yet on its path.

    Raises Refused where no wall can be built.
    """
    limits = limits or SandboxLimits()
    if sys.platform != "linux":
        raise _refused(f"it needs Linux namespaces, and this is {sys.platform}")
    with tempfile.TemporaryDirectory(prefix="elias-jail-", ignore_cleanup_errors=True) as root:
        jail = _start(program, root, limits)
        try:
            output, said, stopped = _listen(jail, limits)
        finally:
            _end(jail)
    if said or jail.returncode == _SETUP_FAILED:
        raise _refused(said.decode("utf-8", "replace").strip() or "the jail ended before the program began")
    return Confined(output=output, exit_code=jail.returncode, stopped=stopped)


def packages() -> list[str]:
    """The folders of the packages installed beside ELIAS, for a program's `sys.path`."""
    paths = sysconfig.get_paths()
    return [path for path in dict.fromkeys((paths["purelib"], paths["platlib"])) if Path(path).is_dir()]


@cache
def why_not() -> str | None:
    """None where programs can be confined, else the reason; tried once in a process."""
    try:
        answer = run_confined("print('inside')")
    except Refused as refusal:
        return refusal.what
    return None if answer.output == b"inside\n" else f"a program in it answered {answer.output!r}"


def _start(program: str, root: str, limits: SandboxLimits) -> subprocess.Popen[bytes]:
    python = _interpreter()
    order = {
        "program": program,
        "root": root,
        "python": str(python),
        "show": _shown(python),
        "cpu_seconds": limits.cpu_seconds,
        "memory_bytes": limits.memory_bytes,
        "disk_bytes": limits.disk_bytes,
        "processes": limits.processes,
        "open_files": limits.open_files,
    }
    jail = subprocess.Popen(
        [str(python), "-I", "-S", str(_JAIL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        start_new_session=True,
    )
    with contextlib.suppress(BrokenPipeError), _stream(jail.stdin) as stdin:  # one that died early says why on stderr
        stdin.write(json.dumps(order).encode())
    return jail


def _listen(jail: subprocess.Popen[bytes], limits: SandboxLimits) -> tuple[bytes, bytes, str | None]:
    """Standard output, standard error, and which bound ended it, if one did."""
    deadline = time.monotonic() + limits.seconds
    heard = {"output": bytearray(), "said": bytearray()}
    stopped: str | None = None
    with selectors.DefaultSelector() as ready:
        ready.register(_stream(jail.stdout), selectors.EVENT_READ, "output")
        ready.register(_stream(jail.stderr), selectors.EVENT_READ, "said")
        while ready.get_map() and stopped is None:
            for key, _ in ready.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(key.fd, 65536)
                heard[key.data] += piece
                if not piece:
                    ready.unregister(key.fileobj)
            if len(heard["output"]) > limits.output_bytes:
                stopped = "output"
            elif ready.get_map() and time.monotonic() >= deadline:
                stopped = "time"
    return bytes(heard["output"][: limits.output_bytes]), bytes(heard["said"]), stopped


def _end(jail: subprocess.Popen[bytes]) -> None:
    """The group holds process 1 of the jail; with it the kernel ends all that runs inside."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(jail.pid, signal.SIGKILL)
    jail.wait()
    for stream in (jail.stdout, jail.stderr):
        _stream(stream).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


@cache
def _interpreter() -> Path:
    """The installation itself, not a virtual environment's link to it."""
    plain = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return (plain if plain.exists() else Path(sys.executable)).resolve()


def _shown(python: Path) -> list[str]:
    prefixes = {python.parents[1], Path(sys.base_prefix).resolve(), Path(sys.base_exec_prefix).resolve()}
    wanted = [
        *_LIBRARIES,
        *(str(p / name) for p in sorted(prefixes) for name in ("lib", "lib64")),
        str(python),
        *packages(),
    ]
    return [path for path in dict.fromkeys(wanted) if os.path.lexists(path)]


def _refused(why: str) -> Refused:
    return Refused(
        f"unread code was not run, the sandbox cannot be built: {why}",
        fix="allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or "
        "kernel.apparmor_restrict_unprivileged_userns=0; docs/judging.md), or leave `doctests` out of `evaluators`",
    )
