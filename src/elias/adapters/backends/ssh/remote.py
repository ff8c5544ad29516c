"""What the other machine does when it is asked: `python3 -I -` there gets this file on stdin, and an order below it.

Standard library only, on any POSIX system with Python 3.11. Nothing is installed. The folder there:

    objects/<sha256>             what parcels are made of, kept under its digest
    slot.lock                    held by the one trainer that may run
    nodes/<node>/<segment>/      order.json, incoming/, parcel/, work/, outbox/, log.txt, segment.key,
                                 who.json (begun), exit.json (how it ended), unwanted, heard, alive.lock

A supervisor in a session of its own outlives the connection. It writes down how the trainer ended, and renews the
trainer's lease for as long as the node is allowed to be out of reach.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PREFIX = "ELIAS-REMOTE "
"""Before the answer: a login shell may print what it likes."""
OLDEST_PYTHON = (3, 11)
NOT_WANTED = 75
EVENTS_AT_ONCE = 1 << 20
LOG_AT_ONCE = 1 << 18
LOOK_EVERY_S = 0.1
KEEP_OBJECTS_S = 14 * 86400.0
"""Objects of no segment are kept for so long: the next segment of a run needs the same corpus."""

Fields = dict[str, Any]


def answer(order: Fields) -> None:
    """Do what is ordered and print the answer; what the disk says no to is an answer too."""
    try:
        os.umask(0o077)
        if sys.version_info < OLDEST_PYTHON and order["do"] != "probe":
            raise OSError(f"Python {sys.version.split()[0]} is too old: 3.11 is needed")
        found = COMMANDS[order["do"]](order)
    except OSError as error:
        found = {"error": str(error), "errno": error.errno}
    print("\n" + PREFIX + json.dumps(found), flush=True)


def probe(order: Fields) -> Fields:
    folder = Path(order["folder"])
    disk = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return {
        "python": sys.version.split()[0],
        "is_old": sys.version_info < OLDEST_PYTHON,
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free": shutil.disk_usage(disk).free,
        "gpus": _gpus(),
        "lacks": [name for name in ("torch", "pyrage") if importlib.util.find_spec(name) is None],
    }


def have(order: Fields) -> Fields:
    """Of each object, how many bytes are there; None is all of it."""
    folder, segment = Path(order["folder"]), _segment(order)
    (segment / "incoming").mkdir(parents=True, exist_ok=True)
    found: Fields = {}
    for digest in order["objects"]:
        whole, part = folder / "objects" / digest, segment / "incoming" / digest
        if whole.exists():
            found[digest] = None
        else:
            found[digest] = part.stat().st_size if part.exists() else 0
    return {"have": found}


def place(order: Fields) -> Fields:
    """Make the parcel of what came, each byte compared with its digest; what differs is removed and named."""
    folder, segment = Path(order["folder"]), _segment(order)
    if (segment / "order.json").exists():
        return {"missing": []}
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    missing = [digest for digest in order["objects"] if not _is_placed(folder, segment, digest)]
    if missing:
        return {"missing": missing}
    for digest, name in order["objects"].items():
        target = segment / "parcel" / digest / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            _link(folder / "objects" / digest, target)
        os.utime(folder / "objects" / digest)
    if order["key"]:
        _write(segment / "segment.key", order["key"].encode())
    _write_json(segment / "order.json", order["job"])
    shutil.rmtree(segment / "incoming", ignore_errors=True)
    return {"missing": []}


def look(order: Fields) -> Fields:
    """How the segment is; begins it where it can begin, and passes on what is wanted of it."""
    segment = _segment(order)
    job = _read_json(segment / "order.json")
    if job is None:
        return {"state": "unknown"}
    if order["cancel"] or (order["pause"] and not (segment / "who.json").exists()):
        (segment / "unwanted").touch()
    if order["renew"]:
        _renew(segment, job)
    if not (segment / "who.json").exists():
        if (segment / "unwanted").exists():
            return {"state": "never"}
        if not _start(Path(order["folder"]), segment, job):
            return {"state": "waiting"}
    is_alive = _is_held(segment / "alive.lock")
    who, ended, now = _read_json(segment / "who.json") or {}, _read_json(segment / "exit.json"), time.time()
    if is_alive:
        _tell(segment, who, order)
    elif job["sealed"]:
        _leave_nothing_open(segment)
    return {
        "state": "running" if is_alive else "ended",
        "age_s": now - who["at"],
        "code": None if ended is None else ended["code"],
        "ended_ago_s": None if ended is None else now - ended["at"],
        "events": _events(segment, order["events_from"]),
    }


def outbox(order: Fields) -> Fields:
    segment = _segment(order)
    path = segment / "outbox" / "outbox.json"
    text = path.read_text(encoding="utf-8") if path.exists() else None
    sizes = {p.name: p.stat().st_size for p in path.parent.glob("*") if p.is_file()} if text else {}
    return {"outbox": text, "sizes": sizes}


def log(order: Fields) -> Fields:
    """Its end."""
    path = _segment(order) / "log.txt"
    if not path.exists():
        return {"log": ""}
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - LOG_AT_ONCE))
        return {"log": stream.read().decode("utf-8", "replace")}


def forget(order: Fields) -> Fields:
    """A segment that has ended, and objects that no segment needs."""
    folder, segment = Path(order["folder"]), _segment(order)
    if _is_held(segment / "alive.lock"):
        return {"forgotten": False}
    shutil.rmtree(segment, ignore_errors=True)
    for path in (folder / "objects").glob("*"):
        found = path.stat()
        is_old = time.time() - found.st_mtime > KEEP_OBJECTS_S
        if path.name in order["sealed_objects"] or (found.st_nlink == 1 and is_old):
            path.unlink()
    return {"forgotten": True}


COMMANDS: dict[str, Callable[[Fields], Fields]] = {
    "probe": probe,
    "have": have,
    "place": place,
    "look": look,
    "outbox": outbox,
    "log": log,
    "forget": forget,
}


# Beginning one


def _start(folder: Path, segment: Path, job: Fields) -> bool:
    """Whether it was begun, by this call or before; the locks make it once."""
    slot, alive = _lock(folder / "slot.lock"), _lock(segment / "alive.lock")
    try:
        if (segment / "who.json").exists():
            return True
        if slot is None or alive is None:
            return False
        ready, launched = os.pipe()
        if os.fork() == 0:
            os.close(ready)
            _supervise(segment, job, launched)
        os.close(launched)
        os.read(ready, 1)  # ends when the trainer has begun, or nobody can begin it any more
        os.close(ready)
        return (segment / "who.json").exists()
    finally:
        for lock in (slot, alive):
            if lock is not None:
                os.close(lock)  # the supervisor has its own copies of both


def _supervise(segment: Path, job: Fields, launched: int) -> NoReturn:
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)  # sshd closes a connection when nobody holds its streams any more
        _renew(segment, job)
        trainer = os.fork()
        if trainer == 0:
            _become_trainer(segment, job)
        os.close(launched)
        code = _watch(trainer, segment, job)
        if code < 0:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(trainer, signal.SIGKILL)  # what it had started is nobody's now
        _write_json(segment / "exit.json", {"code": code, "at": time.time()})
        if job["sealed"]:
            _leave_nothing_open(segment)
    finally:
        os._exit(0)


def _become_trainer(segment: Path, job: Fields) -> NoReturn:
    try:
        os.setpgid(0, 0)
        _write_json(segment / "who.json", {"pid": os.getpid(), "at": time.time()})
        if (segment / "unwanted").exists():
            os._exit(NOT_WANTED)
        log = os.open(segment / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment = dict(os.environ) | {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}
        os.execve(sys.executable, _command(segment, job), environment)
    except OSError:
        traceback.print_exc()
    finally:
        os._exit(70)


def _command(segment: Path, job: Fields) -> list[str]:
    there = segment.absolute()
    arguments = ["carry", "--parcel", str(there / "parcel"), "--work", str(there / "work")]
    arguments += ["--outbox", str(there / "outbox"), "--expect", job["expect"]]
    if job["sealed"]:
        arguments += ["--key", str(there / "segment.key")]
    if job["gpus"] > 1:
        arguments += ["--gpus", str(job["gpus"])]
    return [sys.executable, "-I", str(there / "parcel" / job["trainer"]), *arguments]


def _watch(trainer: int, segment: Path, job: Fields) -> int:
    """Its exit code. Until it ends, its lease is renewed for as long as the node was heard of lately enough."""
    heard, since = None, time.monotonic()
    while True:
        ended, status = os.waitpid(trainer, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        with suppress(OSError):  # of a full disk, say: the lease is renewed another time
            touched = (segment / "heard").stat().st_mtime_ns
            if touched != heard:
                heard, since = touched, time.monotonic()
            if job["lease"] and time.monotonic() - since < job["alone_s"]:
                (segment / "work" / "in" / job["lease"]).touch()
        time.sleep(LOOK_EVERY_S)


def _renew(segment: Path, job: Fields) -> None:
    (segment / "heard").touch()
    if job["lease"]:
        path = segment / "work" / "in" / job["lease"]
        if not (segment / "exit.json").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


# One under way


def _tell(segment: Path, who: Fields, order: Fields) -> None:
    """SIGTERM for a pause or a cancel, once; SIGKILL to all of it when a cancel is not heard."""
    if not (order["cancel"] or order["pause"]):
        return
    told = segment / "told"
    with suppress(ProcessLookupError, PermissionError):
        if not told.exists():
            told.touch()
            os.kill(who["pid"], signal.SIGTERM)
        elif order["cancel"] and time.time() - told.stat().st_mtime > order["grace_s"]:
            os.killpg(who["pid"], signal.SIGKILL)


def _events(segment: Path, offset: int) -> str:
    """Whole lines from byte `offset` on."""
    for path in (segment / "work" / "out" / "events.jsonl", segment / "outbox" / "events.jsonl"):
        with suppress(FileNotFoundError), path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(EVENTS_AT_ONCE)
            return data[: data.rfind(b"\n") + 1].decode("utf-8", "replace")
    return ""


def _leave_nothing_open(segment: Path) -> None:
    """Of sealed data nothing readable stays, nor its key; the events hold numbers only."""
    events, shipped = segment / "work" / "out" / "events.jsonl", segment / "outbox" / "events.jsonl"
    if events.exists():
        (segment / "outbox").mkdir(exist_ok=True)
        _write(shipped, events.read_bytes())
    shutil.rmtree(segment / "work", ignore_errors=True)
    (segment / "segment.key").unlink(missing_ok=True)


# Files


def _segment(order: Fields) -> Path:
    return Path(order["folder"], "nodes", order["node"], order["segment"])


def _is_placed(folder: Path, segment: Path, digest: str) -> bool:
    whole, part = folder / "objects" / digest, segment / "incoming" / digest
    if part.exists():
        with part.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        if found == digest:
            part.replace(whole)
        else:
            part.unlink()
    return whole.exists()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        scratch = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, scratch)
        scratch.replace(target)


def _lock(path: Path) -> int | None:
    """An open file with its lock, which whoever inherits it holds too; None while somebody else has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    os.set_inheritable(handle, True)
    return handle


def _is_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def _gpus() -> list[Fields]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60).stdout
    rows = [line.rsplit(",", 1) for line in listed.splitlines() if "," in line]
    return [{"name": name.strip(), "memory": int(mib) << 20} for name, mib in rows if mib.strip().isdigit()]


def _read_json(path: Path) -> Fields | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


def _write_json(path: Path, value: Fields) -> None:
    _write(path, json.dumps(value).encode())


def _write(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    with scratch.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
