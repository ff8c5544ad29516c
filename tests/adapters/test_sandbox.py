"""The sandbox against programs that misbehave in each way it promises to bound."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from elias.adapters.sandbox import SandboxLimits, packages, run_confined, why_not
from elias.errors import Refused

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no sandbox on this machine: {why_not()}")


def test_a_programs_output_comes_back() -> None:
    answer = run_confined("print('é', 6 * 7)")
    assert (answer.output, answer.exit_code, answer.stopped) == ("é 42\n".encode(), 0, None)


def test_the_network_is_out_of_reach_even_on_loopback() -> None:
    program = """
import socket
for where in (("127.0.0.1", {port}), ("1.1.1.1", 53)):
    try:
        socket.create_connection(where, 1)
    except OSError as error:
        print(type(error).__name__, error.errno)
print(socket.if_nameindex())
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        output = run_confined(program.replace("{port}", str(listener.getsockname()[1]))).output.decode()
    assert output.splitlines()[:2] == ["OSError 101", "OSError 101"]
    assert output.splitlines()[2] == "[(1, 'lo')]"


def test_an_endless_loop_ends_at_its_cpu_limit() -> None:
    assert run_confined("while True: pass", SandboxLimits(cpu_seconds=1, seconds=600)).exit_code == 128 + 9


def test_an_endless_sleep_ends_at_the_wall_clock() -> None:
    assert run_confined("import time\ntime.sleep(600)", SandboxLimits(seconds=1)).stopped == "time"


def test_what_a_program_starts_ends_with_it() -> None:
    marker = f"elias-left-behind-{os.getpid()}"
    program = f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)", "{marker}"])
    os._exit(0)
time.sleep(0.5)
print("gone")
"""
    assert run_confined(program).output == b"gone\n"
    assert not _running(marker)


def test_more_memory_than_allowed_is_refused() -> None:
    program = "try:\n    hoard = b'x' * (1 << 30)\nexcept MemoryError:\n    print('refused')"
    assert run_confined(program).output == b"refused\n"


def test_a_fork_bomb_stays_within_its_processes() -> None:
    program = """
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(600)
        made += 1
except OSError as error:
    print(made, error.errno, flush=True)
os._exit(0)
"""
    made, error = run_confined(program).output.split()
    assert int(made) < 8 and int(error) == 11


def test_threads_count_as_processes() -> None:
    program = """
import os, threading
started = 0
try:
    for _ in range(50):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        started += 1
except RuntimeError:
    os.write(1, b"%d" % started)
os._exit(0)
"""
    assert int(run_confined(program).output) < 8


def test_files_outside_cannot_be_seen_or_changed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o666)
    program = f"""
import os
for path, mode in (({str(secret)!r}, "r"), ({str(secret)!r}, "w"), ("/etc/passwd", "r"), (os.__file__, "a"),
                   ({str(Path.home() / ".elias")!r}, "r"), ("/proc/1/environ", "r"), ("/escaped", "w")):
    try:
        open(path, mode)
        print("opened", path)
    except OSError as error:
        print("no")
open("/elias-jail/note", "w").write("kept while it runs")
"""
    assert run_confined(program).output == b"no\n" * 7
    assert secret.read_text() == "mine"
    assert not Path("/elias-jail/note").exists()


def test_installed_packages_can_be_read_and_not_changed() -> None:
    program = f"""
import sys
sys.path += {packages()!r}
import httpx
try:
    open(httpx.__file__, "a")
except OSError as error:
    print(error.errno)
"""
    assert run_confined(program).output in (b"13\n", b"30\n")  # by its owner, or by the mount


def test_a_large_file_is_refused() -> None:
    program = "try:\n    open('/elias-jail/f', 'wb').write(b'x' * (64 << 20))\nexcept OSError:\n    print('full')"
    assert run_confined(program).output == b"full\n"


def test_a_flood_of_output_is_cut_and_ended() -> None:
    answer = run_confined("while True: print('x' * 1000)", SandboxLimits(output_bytes=10_000))
    assert answer.stopped == "output" and len(answer.output) == 10_000


def test_a_flood_of_errors_goes_nowhere() -> None:
    program = "import os, sys\nfor _ in range(100):\n    os.write(2, b'x' * 65536)\nprint(sys.stderr is not None)"
    assert run_confined(program).output == b"True\n"


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    output = run_confined("import os\nprint(sorted(os.environ))").output.decode()
    assert "HF_TOKEN" not in output and output.strip() == "['HOME', 'LC_CTYPE', 'PATH']"


def test_no_right_can_be_gained() -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(os.getuid() != 0, libc.mount(b"none", b"/", None, 32, None), libc.sethostname(b"x", 1), libc.setuid(0))
"""
    assert run_confined(program).output == b"True -1 -1 -1\n"


def test_standard_input_is_empty() -> None:
    assert run_confined("import sys\nprint(repr(sys.stdin.read()))").output == b"''\n"


def test_an_early_exit_and_a_crash_are_seen_as_such() -> None:
    assert run_confined("import os\nos._exit(0)").output == b""
    assert run_confined("import os\nos.abort()").exit_code == 128 + 6


def test_several_run_at_the_same_time() -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(run_confined(f"print({n})").output)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_where_no_namespace_is_to_be_had_nothing_runs() -> None:
    """In a user namespace that allows no further one, the jail cannot be built, and says so."""
    program = "from elias.adapters.sandbox import run_confined; run_confined('print(1)')"
    forbid = "import pathlib; pathlib.Path('/proc/sys/user/max_user_namespaces').write_text('0'); "
    ended = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", forbid + program], capture_output=True, text=True, check=False
    )
    if "/proc/sys" in ended.stderr:
        pytest.skip("this machine does not let a namespace forbid further ones")
    assert ended.returncode == 1 and ended.stdout == ""
    assert Refused.__name__ in ended.stderr and "take namespaces of its own" in ended.stderr


def _running(marker: str) -> bool:
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker.encode() in (folder / "cmdline").read_bytes():
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False
