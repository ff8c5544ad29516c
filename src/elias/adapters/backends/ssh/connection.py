"""The way to the machine: the system's own `ssh` and `sftp`, so that ~/.ssh/config, agents, jump hosts and security
keys work as they do by hand. Keys are ssh's business; the machine's key is compared and never accepted here.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias.adapters.backends.ssh import remote
from elias.adapters.backends.ssh.settings import SshSettings
from elias.errors import BackendError, ConfigError, DiskFull, EliasError, MissingPackage, VerificationError

CALL_S = 120.0
LONG_CALL_S = 3600.0
"""For one that compares the digests of large files."""
UNREACHED = 255
"""ssh's own failure; anything else is the command's."""
NO_COMMAND = (126, 127)
KEEP_OPEN_S = 60
"""A connection is kept for the next call."""
NO_SPACE = 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    here: str
    """A name in the folder given."""
    there: str
    done: int = 0
    """Bytes that arrived earlier; it goes on after them."""


class Connection:
    def __init__(self, name: str, settings: SshSettings, environment: Mapping[str, str]) -> None:
        self._table = f"[backends.{name}]"
        self._settings = settings
        self._host = settings.host or ""
        self._environment = dict(environment) or dict(os.environ)
        self._program = Path(remote.__file__).read_text(encoding="utf-8")

    def ask(self, do: str, *, within_s: float = CALL_S, **fields: Any) -> dict[str, Any]:
        """What `remote` answers to the order. Raises BackendError, ConfigError, VerificationError, DiskFull."""
        order = json.dumps({"do": do, "folder": self._settings.there, **fields})
        program = f"{self._program}\n\nanswer(json.loads({order!r}))\n"
        command = [self._tool("ssh"), "-T", *self._options(), self._host, f"{self._settings.python} -I -"]
        done = self._run(command, program, within_s)
        found = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(remote.PREFIX)), None)
        if done.returncode != 0 or found is None:
            raise self._failed(done)
        answer: dict[str, Any] = json.loads(found.removeprefix(remote.PREFIX))
        if "error" in answer:
            raise self._refused_there(answer)
        return answer

    def send(self, folder: Path, transfers: Sequence[Transfer]) -> None:
        """Files of `folder`, each going on after what arrived of it."""
        self._sftp(folder, [f'{"reput" if t.done else "put"} "{t.here}" "{t.there}"' for t in transfers])

    def bring(self, folder: Path, transfers: Sequence[Transfer]) -> None:
        """Into `folder`, each going on after what is there of it."""
        self._sftp(folder, [f'{"reget" if t.done else "get"} "{t.there}" "{t.here}"' for t in transfers])

    def close(self) -> None:
        """End the connection that is kept, if there is one."""
        if self._socket():
            self._run([self._tool("ssh"), *self._options(), "-O", "exit", self._host], "", CALL_S)

    # How

    def _sftp(self, folder: Path, lines: list[str]) -> None:
        if not lines:
            return
        command = [self._tool("sftp"), *self._options(), "-b", "-", self._host]
        done = self._run(command, "\n".join(lines) + "\n", None, folder)
        if done.returncode != 0:
            raise self._failed(done)

    def _run(
        self, command: list[str], text: str, within_s: float | None, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Once more where the connection that is kept ended under it: ssh says no word then, and it tells nothing
        about the machine. Every order may be given twice."""
        done = self._run_once(command, text, within_s, folder)
        if done.returncode == UNREACHED and not done.stderr.strip():
            return self._run_once(command, text, within_s, folder)
        return done

    def _run_once(
        self, command: list[str], text: str, within_s: float | None, folder: Path | None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                input=text,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=self._environment,
                cwd=folder,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendError(f"{self._host} did not answer in {within_s:.0f} s", fix=self._by_hand()) from error

    def _options(self) -> list[str]:
        settings = self._settings
        given: dict[str, object] = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": max(1, round(settings.connect.total_seconds())),
            "ServerAliveInterval": 15,
            "ServerAliveCountMax": 3,
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "RemoteCommand": "none",
            "LogLevel": "ERROR",
        }
        if settings.user:
            given["User"] = settings.user
        if settings.port:
            given["Port"] = settings.port
        if socket := self._socket():
            given |= {"ControlMaster": "auto", "ControlPath": socket, "ControlPersist": KEEP_OPEN_S}
        config = ["-F", str(Path(settings.ssh_config).expanduser())] if settings.ssh_config else []
        return config + [part for name, value in given.items() for part in ("-o", f"{name}={value}")]

    def _socket(self) -> str | None:
        """Where connections are kept, by a path short enough; None where that folder is not this user's alone."""
        folder = Path("/tmp") / f"elias-ssh-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        return f"{folder}/%C" if is_ours else None

    def _tool(self, name: str) -> str:
        if found := shutil.which(name, path=self._environment.get("PATH")):
            return found
        raise MissingPackage(f"this machine has no {name}", fix="install OpenSSH's client: apt install openssh-client")

    # What went wrong

    def _by_hand(self) -> str:
        settings = self._settings
        config = f"-F {settings.ssh_config} " if settings.ssh_config else ""
        port = f"-p {settings.port} " if settings.port else ""
        return f"try it by hand: ssh {config}{port}{settings.user + '@' if settings.user else ''}{self._host}"

    def _failed(self, done: subprocess.CompletedProcess[str]) -> EliasError:
        said = done.stderr.strip()
        last = said.splitlines()[-1].strip() if said else f"exit code {done.returncode}, without a word"
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
            return VerificationError(
                f"{self._host} shows another key than before: it was set up anew, or it is another machine",
                fix=f"only if you know why: ssh-keygen -R {self._host}, then {self._by_hand()}, and compare the key",
                kept="nothing was sent",
            )
        if "Host key verification failed" in said or "host key is known" in said:
            return ConfigError(
                f"the key of {self._host} is not among ssh's known hosts, and is not accepted unseen",
                fix=f"{self._by_hand()}; there, compare: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub; say yes",
                kept="nothing was sent",
            )
        if "Permission denied (" in said:
            return ConfigError(
                f"{self._host} lets no key of yours in ({last})",
                fix=f"ssh-copy-id {self._host}, or ssh-add where the key has a passphrase; then {self._by_hand()}",
            )
        if done.returncode in NO_COMMAND:
            return ConfigError(
                f"{self._host} has no {self._settings.python} ({last})",
                fix=f'{self._table} python = "…": the interpreter that has torch, such as ~/venv/bin/python',
            )
        if done.returncode == UNREACHED:
            return BackendError(f"{self._host} is out of reach ({last})", fix=self._by_hand())
        return BackendError(f"{self._host} could not do it ({last})", fix=self._by_hand())

    def _refused_there(self, answer: Mapping[str, Any]) -> EliasError:
        if answer["errno"] == NO_SPACE:
            return DiskFull(f"the disk of {self._host} is full: {answer['error']}", fix=f"free some; {self._by_hand()}")
        return BackendError(f"{self._host}: {answer['error']}", fix=self._by_hand())
