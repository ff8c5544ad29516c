"""A small training place: each segment in a folder of its own, its trainer a plain child process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentFailure, SegmentState
from elias.errors import BackendError, DigestMismatch
from elias.ports.backend import BackendContext, Bundle, Status
from elias.units import FREE
from elias_trainer.contract import (
    FailureKind,
    Outcome,
    Result,
    digest_file,
    from_json,
    tree_digest,
    write_whole,
)

GRACE_S = 4.0
STATES = {Outcome.DONE: SegmentState.DONE, Outcome.PAUSED: SegmentState.PAUSED, Outcome.FAILED: SegmentState.FAILED}


class SubprocessBackend:
    """The handle is the segment's key. All that is known lies in files: any process may ask."""

    def __init__(self, context: BackendContext) -> None:
        self.context = context
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    def offers(self, need: Need) -> Sequence[Offer]:
        return [
            Offer(
                backend=self.context.name,
                accelerator="cpu",
                accelerator_count=1,
                memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                tflops=None,
                hourly=FREE,
                longest=None,
                left=None,
            )
        ]

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        folder = self._folder(key)
        if (folder / "process.json").exists():
            return key
        _verify(bundle)
        shutil.copytree(bundle.folder, folder / "in", dirs_exist_ok=True)
        command = [sys.executable, "-I", "in/trainer.pyz", "train", "--job", "in/job.json", "--out", "out"]
        with (folder / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.children[key] = child
        write_whole(folder / "process.json", json.dumps({"pid": child.pid, "at": time.time()}).encode())
        return key

    def poll(self, handle: str) -> Status:
        folder = self._folder(handle)
        if (folder / "ended.json").exists():
            return _status(json.loads((folder / "ended.json").read_bytes()))
        if not (folder / "process.json").exists():
            return _failed(f"nobody knows a segment {handle!r} here")
        started = json.loads((folder / "process.json").read_bytes())
        if self._is_alive(handle, started["pid"]):
            return Status(state=SegmentState.RUNNING, started_at=datetime.fromtimestamp(started["at"], UTC))
        ended = {"started": started["at"], "ended": time.time(), **self._how_it_ended(folder)}
        write_whole(folder / "ended.json", json.dumps(ended).encode())
        return _status(ended)

    def fetch(self, handle: str, into: Path) -> None:
        """The newest checkpoint appears by a rename, the files of an ended segment do not change any more."""
        out = self._folder(handle) / "out"
        into.mkdir(parents=True, exist_ok=True)
        if (out / "events.jsonl").exists():
            data = (out / "events.jsonl").read_bytes()
            write_whole(into / "events.jsonl", data[: data.rfind(b"\n") + 1])
        while newest := max((out / "checkpoint").glob("step-*"), default=None):
            with suppress(FileNotFoundError):  # while it was copied a newer one took its place: take that
                _copy_whole(newest, into / "checkpoint" / newest.name)
                break
        if (out / "result.json").exists():
            if (out / "adapter").exists():
                _copy_whole(out / "adapter", into / "adapter")
            write_whole(into / "result.json", (out / "result.json").read_bytes())

    def cancel(self, handle: str) -> None:
        if self.poll(handle).state.is_final:
            return
        folder = self._folder(handle)
        write_whole(folder / "cancelled", b"")
        pid = json.loads((folder / "process.json").read_bytes())["pid"]
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
            deadline = time.monotonic() + GRACE_S
            while self._is_alive(handle, pid) and time.monotonic() < deadline:
                time.sleep(0.05)
        self.poll(handle)

    def _folder(self, key: str) -> Path:
        if not key or "/" in key or key.startswith("."):
            raise BackendError(f"{key!r} is no segment of this place", fix="elias run list")
        return self.context.home / key

    def _is_alive(self, key: str, pid: int) -> bool:
        if child := self.children.get(key):
            return child.poll() is None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _how_it_ended(self, folder: Path) -> dict[str, Any]:
        cancelled, path = (folder / "cancelled").exists(), folder / "out" / "result.json"
        if not path.exists():
            message = f"the trainer vanished without a result; see {folder / 'log.txt'}"
            failure = None if cancelled else [FailureKind.INFRASTRUCTURE, message, "elias run resume"]
            return {"state": SegmentState.CANCELLED if cancelled else SegmentState.FAILED, "failure": failure}
        result = from_json(Result, path.read_bytes())
        state = STATES[result.outcome]
        if cancelled and state is not SegmentState.DONE:
            state = SegmentState.CANCELLED
        why = result.failure if state is SegmentState.FAILED else None
        return {"state": state, "failure": [why.kind, why.message, why.fix] if why else None}


def _verify(bundle: Bundle) -> None:
    """Nothing is copied or started for files that are not what the job says."""
    job = bundle.job
    wanted = {job.corpus.path: job.corpus.digest, "trainer.pyz": job.trainer}
    if job.checkpoint:
        wanted[job.checkpoint.path] = job.checkpoint.digest
    for name, digest in wanted.items():
        path = bundle.folder / name
        found = tree_digest(path) if path.is_dir() else digest_file(path)
        if digest is not None and found != digest:
            raise DigestMismatch(f"{name} is not what its digest says", fix="check the disk, then: elias run resume")


def _copy_whole(source: Path, target: Path) -> None:
    if target.exists():
        return
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch)
    scratch.rename(target)


def _status(record: dict[str, Any]) -> Status:
    failure = record["failure"]
    return Status(
        state=SegmentState(record["state"]),
        started_at=datetime.fromtimestamp(record["started"], UTC),
        ended_at=datetime.fromtimestamp(record["ended"], UTC),
        failure=SegmentFailure(kind=FailureKind(failure[0]), message=failure[1], fix=failure[2]) if failure else None,
    )


def _failed(message: str) -> Status:
    failure = SegmentFailure(kind=FailureKind.INFRASTRUCTURE, message=message, fix="elias run resume")
    return Status(state=SegmentState.FAILED, failure=failure)
