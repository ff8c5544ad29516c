"""How this machine's one trainer is launched: once, in the only slot, to outlive whoever launched it.

A segment's folder: order.json (where its job is), who.json (process and birth, written by the trainer's own process),
exit.json (how it ended, by its supervisor), unwanted (cancelled), ended.json (its final state), log.txt and out/.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias.adapters.backends.output import read_json
from elias.adapters.hardware import probe, threads_available
from elias.domain.hours import DailyHours
from elias.domain.tier import GIB
from elias.errors import BackendError, ConfigError
from elias_trainer.contract import write_whole

LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSettings:
    """`[backends.local]`."""

    threads: int | None = None
    """CPU threads of a trainer; None is all that this process may use."""
    processes: int | None = None
    """Trainer processes, a GPU each; None is one a GPU."""
    min_free_bytes: int = GIB
    """Room that must be left on the disk beyond what a segment is known to need."""
    hours: DailyHours | None = None
    """Of the day, in which alone it trains here; None is at any time."""
    cache: str | None = None
    """Where converted base models are kept between segments."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> LocalSettings:
        if unknown := sorted(raw.keys() - set(cls.__dataclass_fields__)):
            known = ", ".join(cls.__dataclass_fields__)
            raise ConfigError(f"[backends.local] has no setting {unknown[0]!r}", fix=f"it knows: {known}")
        for name in ("threads", "processes", "min_free_bytes"):
            value = raw.get(name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise ConfigError(
                    f"[backends.local] {name} is {value!r}, not a whole number", fix=f"write it like: {name} = 2"
                )
        return cls(**{**raw, "hours": _hours(raw.get("hours"))})


def _hours(raw: object) -> DailyHours | None:
    if raw is None:
        return None
    try:
        return DailyHours.parse(str(raw))
    except ValueError as error:
        raise ConfigError(
            f"[backends.local] hours is {raw!r}, not from when to when", fix='write it like: hours = "22:00-07:00"'
        ) from error


@dataclass(frozen=True, slots=True)
class Launching:
    home: Path
    settings: LocalSettings
    environment: Mapping[str, str]

    def launch_if_free(self, segment: Path) -> bool:
        """Whether the segment in this folder was launched, by this call or before; the lock makes it once."""
        with self._slot() as slot:
            if slot is None or (segment / "unwanted").exists():
                return False
            if (segment / "who.json").exists():
                return True
            order = read_json(segment / "order.json")
            if order is None:
                return False
            if order["lease"]:
                touch(Path(order["lease"]))
            self._launch(segment, Path(order["job"]), slot)
            return True

    def _launch(self, segment: Path, job: Path, slot: int) -> None:
        order = {
            "command": self._command(job, segment / "out"),
            "environment": self._trainer_environment(),
            "identity": str(segment / "who.json"),
            "exit": str(segment / "exit.json"),
            "unwanted": str(segment / "unwanted"),
            "log": str(segment / "log.txt"),
        }
        write_whole(segment / "launch.json", json.dumps(order).encode())
        (segment / "launch.json").chmod(0o600)
        with (segment / "log.txt").open("ab") as log:
            subprocess.run(
                [sys.executable, "-I", str(LAUNCHER), str(segment / "launch.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[slot],
                start_new_session=True,
                check=False,
            )
        if not (segment / "who.json").exists():
            raise BackendError(
                f"the trainer could not be started; {segment / 'log.txt'} says why",
                fix="read that file, then: elias run resume",
            )

    @contextmanager
    def _slot(self) -> Iterator[int | None]:
        """An open file with its lock held, or None while another trainer holds it.

        The lock belongs to the open file, so a trainer that inherits it holds it until it ends, however it ends.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.home / "slot.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            yield None
            return
        try:
            yield handle
        finally:
            os.close(handle)

    def _command(self, job: Path, out: Path) -> list[str]:
        archive = str(job.parent / "trainer.pyz")
        cache = ["--cache", self.settings.cache] if self.settings.cache else []
        arguments = [archive, "train", "--job", str(job), "--out", str(out), *cache]
        processes = self.settings.processes or max(1, len(probe(self.home).gpus))
        if processes > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            return [sys.executable, *launch, *arguments]
        return [sys.executable, "-I", *arguments]

    def _trainer_environment(self) -> dict[str, str]:
        threads = str(self.settings.threads or threads_available())
        return dict(self.environment) | {
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",  # active waiting starves whatever else runs here
            "TOKENIZERS_PARALLELISM": "false",
        }


def touch(path: Path) -> None:
    with suppress(FileNotFoundError):  # the run's folder was removed: nobody is left to renew for
        path.touch()
