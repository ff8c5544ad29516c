"""Carries one segment out on a foreign machine: opens the parcel, runs the trainer, keeps the outbox filled.

    python trainer.bin carry --parcel DIR --work DIR --outbox DIR
        [--expect DIGEST] [--key FILE] [--base DIR] [--seconds N] [--gpus N]
        [--resume] [--limit N] [--model DIR] [--failure FILE] [--install]

`work` is private to the machine and not kept; what lies in `outbox` is what comes home, whatever way the machine ends.
Where the place starts the job again on another machine, with the outbox as it was, `--resume` goes on from the newest
checkpoint in it that is whole. Exit codes: the trainer's own; 75 when the parcel is not the expected one, before any
GPU second is spent.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from elias_trainer.contract import (
    CheckpointRef,
    Digest,
    canonical_json,
    digest_bytes,
    digest_file,
    tree_digest,
    write_whole,
)
from elias_trainer.folders import clear_leftovers
from elias_trainer.parcel import (
    NOTE_PREFIX,
    PACKED,
    PARCEL_FILE,
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
SPENT_FILE = "spent.json"


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
    parser.add_argument("--resume", action="store_true", help="from the newest whole checkpoint in the outbox")
    parser.add_argument("--limit", type=float, help="seconds; the trainer's own deadline is no later")
    parser.add_argument("--model", type=Path, help="an outbox of its own for the finished adapter")
    parser.add_argument("--failure", type=Path, help="where the place looks for the reason of a failure")
    parser.add_argument("--install", action="store_true", help="first install the wheels in the parcel, with pip")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    options.outbox.mkdir(parents=True, exist_ok=True)
    try:
        folder = _gathered(options.parcel, options.work / "parcel")
        parcel = check_parcel(folder, options.expect)
        if options.install and (why := _install(folder, parcel, options.work / "wheels")):
            return _give_up(options.failure, "lacks", why)
        if parcel.sealed and importlib.util.find_spec("pyrage") is None:
            return _give_up(options.failure, "lacks", "private data needs pyrage to be opened: the image has no pyrage")
        identity = options.key.read_text(encoding="utf-8").strip() if options.key else None
        job = _open_parcel(folder, parcel, options.work / "in", identity)
    except (NotWhole, OSError) as error:
        _give_up(options.failure, "stale", str(error))
        return STALE
    _note("opened", parcel=parcel.digest)
    _compare_accelerator(parcel)
    if options.base:
        _lay_base(options.base, job, options.work)
    shipper = _Shipper(out=options.work / "out", outbox=options.outbox, parcel=parcel)
    shipper.out.mkdir(parents=True, exist_ok=True)
    shipper.model, shipper.failure = options.model, options.failure
    if options.resume:
        shipper.resumes = True
        shipper.also_to = (_recipient_of(identity),) if parcel.sealed and identity else ()
        shipper.go_on(job, identity)
        shipper.began = began - _seconds_spent(options.outbox)
    if options.limit:
        _shorten(job, options.limit - (time.monotonic() - (shipper.began or began)))
    end = began + options.seconds if options.seconds else None
    return _train(_command(job, shipper.out.absolute(), options.gpus), options.work, shipper, end)


def _gathered(parcel: Path, into: Path) -> Path:
    """The parcel's folder; where its files lie apart, each in a folder named by its digest, links to them in one."""
    if (parcel / PARCEL_FILE).exists():
        return parcel
    into.mkdir(parents=True, exist_ok=True)
    for path in parcel.glob("*/*"):
        (into / path.name).unlink(missing_ok=True)
        (into / path.name).symlink_to(path.absolute())
    return into


def _install(folder: Path, parcel: Parcel, into: Path) -> str | None:
    """Why that failed."""
    into.mkdir(parents=True, exist_ok=True)
    names = [name.removesuffix(".bin") for name in parcel.files if name.endswith(".whl.bin")]
    has_pyrage = importlib.util.find_spec("pyrage") is not None  # sent along without knowing whether it is there
    wheels = [into / name for name in names if not (has_pyrage and name.startswith("pyrage-"))]
    for wheel in wheels:
        shutil.copyfile(folder / f"{wheel.name}.bin", wheel)
    if not wheels:
        return None
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", *map(str, wheels)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    return done.stderr.strip()[-500:] if done.returncode else None


def _give_up(failure: Path | None, kind: str, message: str) -> int:
    """Said in the log, and where the place shows it to people."""
    _note(kind, message=message)
    if failure:
        write_whole(failure, message.encode())
    return 1


def _seconds_spent(outbox: Path) -> float:
    """By earlier machines, until they last wrote it down."""
    try:
        return float(json.loads((outbox / SPENT_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return 0.0


def _shorten(job: Path, seconds: float) -> None:
    """The trainer's deadline is the earlier of its own and `seconds` from now."""
    raw = json.loads(job.read_bytes())
    own = raw["limits"].get("seconds")
    raw["limits"]["seconds"] = max(0.0, min(seconds, own) if own is not None else seconds)
    write_whole(job, canonical_json(raw))


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


def _train(command: list[str], work: Path, shipper: _Shipper, end: float | None) -> int:
    """The trainer's exit code. At `end` (of the monotonic clock) it is told to stop, and after a grace made to."""
    numbers, early = (signal.SIGTERM, signal.SIGINT), list[int]()
    for number in numbers:  # one that comes while the trainer is being started is passed on too
        signal.signal(number, lambda received, frame: early.append(received))
    process = subprocess.Popen(command, cwd=work)
    for number in numbers:
        signal.signal(number, lambda received, frame: process.send_signal(received))
    for received in early:
        process.send_signal(received)
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
    began: float | None = None
    """On the monotonic clock, what earlier machines have spent taken off."""
    resumes: bool = False
    """Whether another machine may have to go on with what lies in the outbox."""
    also_to: tuple[str, ...] = ()
    """Whom checkpoints are sealed for beside the node: this very segment, for another machine that goes on with it."""
    model: Path | None = None
    failure: Path | None = None

    def go_on(self, job: Path, identity: str | None) -> None:
        """Start `job` from the newest checkpoint that an earlier machine left whole, if it left one."""
        clear_leftovers(self.outbox)
        raw = json.loads(job.read_bytes())
        own = _step(raw["checkpoint"]["path"]) if raw.get("checkpoint") else -1
        for box, ref in _left_behind(self.outbox):
            file = self.outbox / ref.path
            if ref.step <= own or not file.is_file() or digest_file(file) != box.files.get(ref.path):
                continue
            path = f"checkpoint/step-{ref.step:08d}"
            try:
                unpack(file, job.parent / path, identity)
            except NotWhole as error:
                _note("not_whole", checkpoint=ref.step, message=str(error))
                continue
            if tree_digest(job.parent / path) != ref.digest:
                continue
            raw["checkpoint"] = {"path": path, "digest": str(ref.digest)}
            write_whole(job, canonical_json(raw))
            self.shipped, self.files = [ref], {ref.path: box.files[ref.path]}
            if (self.outbox / "events.jsonl").is_file():
                write_whole(self.out / "events.jsonl", (self.outbox / "events.jsonl").read_bytes())
            _note("resumed", step=ref.step)
            return

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
                self.files[name] = self._pack(folder, self.outbox / name, (*self._recipients, *self._also))
            except FileNotFoundError:
                continue  # rotated away while it was read; a newer one is there
            except OSError as error:  # a full disk: the training goes on, and so does the checkpoint before
                _note("not_shipped", checkpoint=step, message=str(error))
                self.given_up.add(step)
                continue
            self.shipped.append(CheckpointRef(step=step, path=name, digest=digest))
            if self.resumes:
                self._outbox_of(self.shipped[-1:]).write_to(self.outbox / beside(name))
                spent = time.monotonic() - (self.began or time.monotonic())
                write_whole(self.outbox / SPENT_FILE, canonical_json(spent))
            self._ship_plain("events.jsonl")
            self._publish()

    def ship_end(self) -> None:
        if (self.out / "result.json").is_file() and (self.out / "adapter").is_dir():
            self._ship_adapter()
        self._ship_plain("events.jsonl")
        if digest_of_result := self._ship_plain("result.json"):
            self.files["result.json"] = digest_of_result
            self._write_failure()
        self._publish()

    def _ship_adapter(self) -> None:
        """Into the outbox; or, where the place has another folder for it, there with the result, as an outbox whole by
        itself."""
        name, place = f"adapter.pack{self._ending}", self.model or self.outbox
        place.mkdir(parents=True, exist_ok=True)
        digest = self._pack(self.out / "adapter", place / name, self._recipients)
        if self.model is None:
            self.files[name] = digest
            return
        result = (self.out / "result.json").read_bytes()
        write_whole(place / "result.json", result)
        files = {name: digest, "result.json": digest_bytes(result)}
        Outbox(checkpoints=(), files=files, sealed=bool(self._recipients)).write(place)

    def _write_failure(self) -> None:
        failure = json.loads((self.out / "result.json").read_bytes()).get("failure")
        if failure and self.failure:
            write_whole(self.failure, str(failure["message"]).encode())

    def _ship_plain(self, name: str) -> Digest | None:
        """Readable for whoever has the outbox: numbers about the training, nothing that it learned from."""
        if not (self.out / name).is_file():
            return None
        data = (self.out / name).read_bytes()
        write_whole(self.outbox / name, data)
        return digest_bytes(data)

    @property
    def _also(self) -> tuple[str, ...]:
        return self.also_to if self._recipients else ()

    def _pack(self, folder: Path, target: Path, recipients: tuple[str, ...]) -> Digest:
        """Made ready outside the outbox: nothing unsealed ever lies in it."""
        return pack(folder, target, recipients, scratch=self.out.parent)

    def _outbox_of(self, refs: list[CheckpointRef]) -> Outbox:
        files = {ref.path: self.files[ref.path] for ref in refs}
        return Outbox(checkpoints=tuple(refs), files=files, sealed=bool(self._recipients))

    def _publish(self) -> None:
        """Name the new ones, then drop the old: a reader always finds a whole one."""
        old, self.shipped = self.shipped[:-KEEP_CHECKPOINTS], self.shipped[-KEEP_CHECKPOINTS:]
        for ref in old:
            self.files.pop(ref.path, None)
        Outbox(checkpoints=tuple(self.shipped), files=self.files, sealed=bool(self._recipients)).write(self.outbox)
        for ref in old:
            (self.outbox / ref.path).unlink(missing_ok=True)
            (self.outbox / beside(ref.path)).unlink(missing_ok=True)


def beside(name: str) -> str:
    """The little outbox of one checkpoint, by which it is known whole without outbox.json: a place that copies file by
    file may have an outbox.json that names what has not arrived."""
    return f"{name.partition('.')[0]}.json"


def _left_behind(outbox: Path) -> list[tuple[Outbox, CheckpointRef]]:
    """Newest first."""
    found = []
    for path in sorted(outbox.glob("checkpoint-*.json"), reverse=True):
        try:
            box = Outbox.read_from(path)
        except NotWhole:
            continue  # copied in part; there is an older one
        found += [(box, ref) for ref in box.checkpoints]
    return found


def _step(path: str) -> int:
    return int(path.rpartition("step-")[2])


def _recipient_of(identity: str) -> str:
    import pyrage

    return str(pyrage.x25519.Identity.from_str(identity).to_public())


def _note(kind: str, **fields: object) -> None:
    print(NOTE_PREFIX + json.dumps({"kind": kind, **fields}), flush=True)
