"""Carries one segment out on a foreign machine: opens the parcel, runs the trainer, keeps the outbox filled.

    python trainer.bin carry --parcel DIR --work DIR --outbox DIR
        [--expect DIGEST] [--key FILE] [--base DIR] [--seconds N] [--gpus N]

`work` is private to the machine and not kept; what lies in `outbox` is what comes home, whatever way the machine ends.
Exit codes: the trainer's own; 75 when the parcel is not the expected one, before any GPU second is spent.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from elias_trainer.contract import CheckpointRef, Digest, digest_bytes, tree_digest, write_whole
from elias_trainer.parcel import (
    NOTE_PREFIX,
    PACKED,
    SEALED,
    TRAINER_FILE,
    NotWhole,
    Outbox,
    Parcel,
    check_parcel,
    pack,
    unpack,
)

STALE = 75
"""EX_TEMPFAIL of sysexits.h: the same thing may go well later."""
KEEP_CHECKPOINTS = 2
LOOK_EVERY_S = 0.5
GRACE_S = 120.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="carry", description=__doc__)
    parser.add_argument("--parcel", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--outbox", type=Path, required=True)
    parser.add_argument("--expect", type=Digest)
    parser.add_argument("--key", type=Path, help="file with the segment's age identity")
    parser.add_argument("--base", type=Path, help="a folder with the base model's files")
    parser.add_argument("--seconds", type=float, help="from now until the trainer is told to stop")
    parser.add_argument("--gpus", type=int, default=0, help="more than one: a process each, by torchrun")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    options.outbox.mkdir(parents=True, exist_ok=True)
    try:
        parcel = check_parcel(options.parcel, options.expect)
        identity = options.key.read_text(encoding="utf-8").strip() if options.key else None
        job = _open_parcel(options.parcel, parcel, options.work / "in", identity)
    except (NotWhole, OSError) as error:
        _note("stale", message=str(error))
        return STALE
    _note("opened", parcel=parcel.digest)
    _compare_accelerator(parcel)
    if options.base:
        _lay_base(options.base, job, options.work)
    shipper = _Shipper(out=options.work / "out", outbox=options.outbox, parcel=parcel)
    shipper.out.mkdir(parents=True, exist_ok=True)
    end = began + options.seconds if options.seconds else None
    process = subprocess.Popen(_command(job, shipper.out.absolute(), options.gpus), cwd=options.work)
    return _train(process, shipper, end)


def _open_parcel(folder: Path, parcel: Parcel, into: Path, identity: str | None) -> Path:
    """The job's path. Names in the work folder are those that job.json uses."""
    for name in parcel.files:
        if name.endswith((".whl.bin", ".sealed")):
            continue  # for whoever set this machine up
        plain = name.removesuffix(SEALED)
        target = into / plain.removesuffix(PACKED)
        if plain == "checkpoint.pack":
            target = into / json.loads((folder / "job.json").read_bytes())["checkpoint"]["path"]
        unpack(folder / name, target, identity)
    return (into / "job.json").absolute()


def _lay_base(base: Path, job: Path, work: Path) -> None:
    """Under its own reference in the trainer's working folder, where the trainer looks before it asks any hub."""
    reference = Path(json.loads(job.read_bytes())["base"]["reference"])
    if reference.is_absolute() or ".." in reference.parts:
        return
    (work / reference).parent.mkdir(parents=True, exist_ok=True)
    (work / reference).symlink_to(base.absolute(), target_is_directory=True)


def _compare_accelerator(parcel: Parcel) -> None:
    """Say in the first minute what was found; whether it will do is for the one who pays."""
    if not shutil.which("nvidia-smi"):
        found: list[str] = []
    else:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
        found = [line.split(":", 1)[1].split("(")[0].strip() for line in listed.stdout.splitlines() if ":" in line]
    matches = parcel.accelerator is None or (
        len(found) >= parcel.accelerator_count and all(parcel.accelerator in name for name in found)
    )
    _note(
        "accelerator",
        found=found,
        expected=parcel.accelerator,
        expected_count=parcel.accelerator_count,
        matches=matches,
    )


def _command(job: Path, out: Path, gpus: int) -> list[str]:
    trainer = str(job.parent / TRAINER_FILE)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", trainer]
    start = torchrun if gpus > 1 else ["-I", trainer]
    return [sys.executable, *start, "train", "--job", str(job), "--out", str(out)]


def _train(process: subprocess.Popen[bytes], shipper: _Shipper, end: float | None) -> int:
    """The trainer's exit code. At `end` (of the monotonic clock) it is told to stop, and after a grace made to."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    was_told = False
    while process.poll() is None:
        shipper.ship_checkpoints()
        if end is not None and time.monotonic() >= end:
            if not was_told:
                process.terminate()
                was_told = True
            elif time.monotonic() >= end + GRACE_S:
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY_S)
    shipper.ship_checkpoints()
    shipper.ship_end()
    _note("ended", exit_code=process.returncode)
    return process.returncode


@dataclass(kw_only=True, slots=True)
class _Shipper:
    """Keeps the outbox up with `out`; what is named in outbox.json is whole."""

    out: Path
    outbox: Path
    parcel: Parcel
    shipped: list[CheckpointRef] = field(default_factory=list)
    files: dict[str, Digest] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)

    @property
    def _recipients(self) -> tuple[str, ...]:
        return (self.parcel.outputs_to,) if self.parcel.outputs_to else ()

    @property
    def _ending(self) -> str:
        return SEALED if self._recipients else ""

    def ship_checkpoints(self) -> None:
        known = {ref.step for ref in self.shipped} | self.given_up
        for folder in sorted((self.out / "checkpoint").glob("step-*")):
            step = int(folder.name.removeprefix("step-"))
            if step in known:
                continue
            name = f"checkpoint-{step:08d}.pack{self._ending}"
            try:
                digest = tree_digest(folder)
                self.files[name] = self._pack(folder, name)
            except FileNotFoundError:
                continue  # rotated away while it was read; a newer one is there
            except OSError as error:  # a full disk: the training goes on, and so does the checkpoint before
                _note("not_shipped", checkpoint=step, message=str(error))
                self.given_up.add(step)
                continue
            self.shipped.append(CheckpointRef(step=step, path=name, digest=digest))
            self._ship_plain("events.jsonl")
            self._publish()

    def ship_end(self) -> None:
        if (self.out / "result.json").is_file() and (self.out / "adapter").is_dir():
            name = f"adapter.pack{self._ending}"
            self.files[name] = self._pack(self.out / "adapter", name)
        self._ship_plain("events.jsonl")
        if digest := self._ship_plain("result.json"):
            self.files["result.json"] = digest
        self._publish()

    def _ship_plain(self, name: str) -> Digest | None:
        """Readable for whoever has the outbox: numbers about the training, nothing that it learned from."""
        if not (self.out / name).is_file():
            return None
        data = (self.out / name).read_bytes()
        write_whole(self.outbox / name, data)
        return digest_bytes(data)

    def _pack(self, folder: Path, name: str) -> Digest:
        """Made ready outside the outbox: nothing unsealed ever lies in it."""
        return pack(folder, self.outbox / name, self._recipients, scratch=self.out.parent)

    def _publish(self) -> None:
        """Name the new ones, then drop the old: a reader always finds a whole one."""
        old, self.shipped = self.shipped[:-KEEP_CHECKPOINTS], self.shipped[-KEEP_CHECKPOINTS:]
        for ref in old:
            self.files.pop(ref.path, None)
        Outbox(checkpoints=tuple(self.shipped), files=self.files, sealed=bool(self._recipients)).write(self.outbox)
        for ref in old:
            (self.outbox / ref.path).unlink(missing_ok=True)


def _note(kind: str, **fields: object) -> None:
    print(NOTE_PREFIX + json.dumps({"kind": kind, **fields}), flush=True)
