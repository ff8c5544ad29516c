"""A real SSH server on loopback: OpenSSH's sshd where there is one, and asyncssh's in a process of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyrage
import pytest

from elias.adapters.backends.ssh import SshBackend
from elias.adapters.clock import SystemClock
from elias.ports.backend import BackendContext
from elias.testing.ports import free_port
from elias.testing.waiting import PATIENCE_S

NODE_KEY = str(pyrage.x25519.Identity.generate())
AS_ROOT = """
mount -t tmpfs none /run && mkdir -p /run/sshd
sed 's#^\\(root:.*\\):[^:]*$#\\1:/bin/sh#' /etc/passwd > "$1/passwd"
grep -q '^sshd:' "$1/passwd" || echo 'sshd:x:101:65534::/run/sshd:/usr/sbin/nologin' >> "$1/passwd"
mount --bind "$1/passwd" /etc/passwd
shift; exec "$@"
"""
"""In a mount namespace of its own: the folder and the user that sshd wants when it is started by root, and a login
shell that reads no file of this machine."""


@dataclass
class Server:
    kind: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    known: str = field(default="")

    @property
    def config(self) -> Path:
        """An ~/.ssh/config of the tests' own."""
        return self.folder / "config"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def stop(self) -> None:
        """With every connection, as when its machine drops off the net; what those began goes on."""
        if self.process is None:
            return
        for child in [*self.cut(), self.process]:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait()
        self.process = None

    def cut(self) -> list[psutil.Process]:
        """The server's processes that serve a connection now; asyncssh has none of its own for that."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # its connection ended just now
                found += [child] if child.name() == "sshd" else []
        return found

    def trust(self) -> None:
        """What a person does once who compared the machine's key and said yes."""
        (self.folder / "known_hosts").write_text(self.known)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _command(self) -> list[str]:
        if self.kind == "asyncssh":
            program = Path(__file__).with_name("python_sshd.py")
            keys = [str(self.folder / name) for name in ("host_key", "authorized_keys")]
            return [sys.executable, "-W", "ignore", str(program), str(self.port), *keys]
        sshd = [_sshd() or "sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
        if os.getuid() != 0:
            return sshd
        return ["unshare", "-m", "sh", "-c", AS_ROOT, "sh", str(self.folder), *sshd]


@pytest.fixture(scope="session", params=["sshd", "asyncssh"])
def shared_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = make_server(request.param, tmp_path_factory.mktemp(request.param))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that a test may stop and start: sshd where there is one, or asyncssh's."""
    (tmp_path / "server").mkdir()
    made = make_server("sshd" if _sshd() else "asyncssh", tmp_path / "server")
    made.start()
    yield made
    made.stop()


def make_server(kind: str, folder: Path) -> Server:
    if kind == "sshd" and _sshd() is None:
        pytest.skip("this machine has no OpenSSH server: apt install openssh-server, or set ELIAS_TEST_SSHD")
    port = free_port()
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copyfile(folder / "key.pub", folder / "authorized_keys")
    (folder / "config").write_text(
        f"Host lab\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder / 'key'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n"
    )
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nPasswordAuthentication no\nUsePAM no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    made = Server(kind=kind, folder=folder, port=port, known=f"[127.0.0.1]:{port} {host_key}\n")
    made.trust()
    return made


def _sshd() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return os.environ.get("ELIAS_TEST_SSHD") or shutil.which("sshd", path=path)


MakeBackend = Callable[..., SshBackend]


def settings_for(server: Server, there: Path, **over: Any) -> dict[str, Any]:
    return {
        "host": "lab",
        "ssh_config": str(server.config),
        "python": sys.executable,
        "folder": str(there),
        "poll_every": "0s",
        "alone": "0s",
        "connect": "2m",
        **over,
    }


def make_backend(server: Server, home: Path, there: Path, **over: Any) -> SshBackend:
    return SshBackend(
        BackendContext(
            name="lab",
            node="test node",
            home=home,
            settings=settings_for(server, there, **over),
            clock=SystemClock(),
            node_key=NODE_KEY,
        )
    )


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Path]:
    """The folder on the other machine; what still trains in it afterwards is ended."""
    yield tmp_path / "there"
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path / "there") in part for part in process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                process.send_signal(signal.SIGKILL)


QUICK_TESTS = (
    "test_a_segment_runs_to_its_end_and_comes_home_whole[sshd]",
    "test_a_trainer_that_vanishes_is_a_failure_worth_another_try_and_its_checkpoint_comes_home[sshd]",
    "test_a_trainer_nobody_waits_for_pauses_by_itself[sshd]",
    "test_cancelling_keeps_the_checkpoint[sshd]",
    "test_a_segment_runs_to_its_end_and_comes_home_whole[asyncssh]",
)
"""Those of the shared suite that `make quick` runs; `make test` runs all of it, against both servers."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "adapters/ssh/test_ssh_suite.py" in item.nodeid and item.name not in QUICK_TESTS:
            item.add_marker(pytest.mark.slow)
