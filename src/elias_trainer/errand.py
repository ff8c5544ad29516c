"""One segment on a worker: fetched, trained, and brought home while it trains. Standard library only.

    <segment>/order.json                    what the node said
              parcel/ work/ outbox/         as `elias_trainer.carry` has them
              who.json alive.lock           begun; held by the trainer while it lives
              log.txt events.jsonl sending/ segment.key

The node is told every few seconds how it is, and says what is wanted. While the node is out of reach the trainer goes
on alone for as long as the order allows, and all that is whole goes home when the node answers again.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from elias_trainer.calls import Broken, Dismissed, Fields, Gone, Node, Unreachable
from elias_trainer.contract import canonical_json, write_whole
from elias_trainer.parcel import OUTBOX_FILE, TRAINER_FILE

TAIL_BYTES = 1 << 18
LOOK_EVERY_S = 0.1
MOST_TRIES = 3
"""For a file that arrives changed."""
NOT_BEGUN = "never"
PDEATHSIG = 1


@dataclass(kw_only=True)
class Errand:
    node: Node
    folder: Path
    order: Fields
    say: Callable[[str], None]
    is_to_stop: threading.Event
    """Set when the person at this machine wants it back."""
    want: str = "go"
    problem: str | None = None
    shipped: bytes = b""
    sent: dict[str, int] = field(default_factory=dict)
    """Of events and log, how many bytes the node has."""
    heard: float = field(default_factory=time.monotonic)
    """When the node last said that somebody waits for it."""
    due: float = 0.0
    lost_since: float | None = None
    told: float | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> str:
        return str(self.order["segment"])

    def carry_out(self) -> None:
        """To its end and home. Raises Dismissed; a segment that the node gave up is dropped."""
        try:
            code: int | str | None
            if (self.folder / "who.json").exists():
                self._wait_for_what_was_left()
                code = None
            elif self._fetch():
                code = self._train()
            else:
                code = NOT_BEGUN
            self._leave_nothing_open()
            self._deliver(code)
        except (Gone, Dismissed) as error:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            if isinstance(error, Dismissed):
                raise
            self.say(f"{self.key}: the node has given it up: {error}")
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """At once, with all that it has started."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    # Fetching

    def _fetch(self) -> bool:
        """Whether it is all here; not, when it is not wanted any more or arrives changed again and again."""
        total = sum(one["size"] for one in self.order["files"].values())
        self.say(f"{self.key}: fetching {total / 1e6:.1f} MB")
        tries = 0
        while tries < MOST_TRIES:
            try:
                for name, one in self.order["files"].items():
                    if not (self.folder / "parcel" / name).exists():
                        path = f"/segments/{self.key}/parcel/{name}"
                        self.node.download(
                            path, self.folder / "parcel" / name, one["digest"], one["size"], self._beat_or_stop
                        )
                return True
            except _NotWanted:
                return False
            except Broken as error:
                tries += 1
                self.problem = str(error)
            except OSError as error:
                self.problem = f"the worker's disk: {error}"
                return False
            except Unreachable as error:
                self._wait(error)
                if self.is_to_stop.is_set():
                    return False
        return False

    def _beat_or_stop(self) -> None:
        self._beat("fetching")
        if self.want != "go" or self.is_to_stop.is_set():
            raise _NotWanted

    # Training

    def _train(self) -> int:
        if key := self.order.get("key"):
            handle = os.open(self.folder / "segment.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(key)
        self.say(f"{self.key}: training")
        self._touch_lease()
        with self._started() as process:
            while process.poll() is None:
                try:
                    self._beat()
                    self._ship()
                except Unreachable as error:
                    self._note_lost(error)
                self._heed()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_EVERY_S)
        code = process.returncode
        if code < 0:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it had started is nobody's now
        return code

    @contextmanager
    def _started(self) -> Iterator[subprocess.Popen[bytes]]:
        lock = os.open(self.folder / "alive.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            with (self.folder / "log.txt").open("ab") as log:
                self.process = subprocess.Popen(
                    self._command(),
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=[lock],
                    preexec_fn=_end_with_me,
                    env=dict(os.environ) | {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"},
                )
        finally:
            os.close(lock)  # the trainer has its own copy
        write_whole(self.folder / "who.json", canonical_json({"process": self.process.pid}))
        over = threading.Event()
        keeper = threading.Thread(target=self._keep_lease, args=(over,), daemon=True)
        keeper.start()
        try:
            yield self.process
        except BaseException:
            self.kill()
            raise
        finally:
            over.set()
            keeper.join()

    def _command(self) -> list[str]:
        there = self.folder.absolute()
        words = [sys.executable, "-I", str(there / "parcel" / TRAINER_FILE), "carry", "--expect", self.order["expect"]]
        for option in ("parcel", "work", "outbox"):
            words += [f"--{option}", str(there / option)]
        if self.order.get("key"):
            words += ["--key", str(there / "segment.key")]
        if self.order["gpus"] > 1:
            words += ["--gpus", str(self.order["gpus"])]
        return words

    def _keep_lease(self, over: threading.Event) -> None:
        while not over.wait(LOOK_EVERY_S):
            if time.monotonic() - self.heard < self.order["alone_s"]:
                with suppress(OSError):  # of a full disk, say: another time
                    self._touch_lease()

    def _touch_lease(self) -> None:
        if self.order["lease"]:
            path = self.folder / "work" / "in" / self.order["lease"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def _heed(self) -> None:
        """SIGTERM once for whatever ends it; SIGKILL when a cancel is not heard."""
        if self.process is None or (self.want == "go" and not self.is_to_stop.is_set()):
            return
        with suppress(ProcessLookupError):
            if self.told is None:
                self.told = time.monotonic()
                self.say(f"{self.key}: {'to be paused' if self.want == 'go' else self.want}; saving a checkpoint")
                self.process.terminate()
            elif self.want == "cancel" and time.monotonic() - self.told > self.order["grace_s"]:
                os.killpg(self.process.pid, signal.SIGKILL)

    def _wait_for_what_was_left(self) -> None:
        """An earlier worker died; its trainer was told to save a checkpoint and end, and is made to end."""
        self.say(f"{self.key}: this worker had ended in the middle; bringing home what there is")
        until = time.monotonic() + self.order["grace_s"]
        with (self.folder / "alive.lock").open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > until:
                        who = json.loads((self.folder / "who.json").read_bytes())
                        os.killpg(who["process"], signal.SIGKILL)
                    with suppress(Unreachable):
                        self._beat()
                    time.sleep(LOOK_EVERY_S)

    # Home

    def _deliver(self, code: int | str | None) -> None:
        while True:
            try:
                self._ship(is_last=True)
                while self._report("running"):
                    pass
                self._report("ended", code)
                self.say(f"{self.key}: over, and home")
                return
            except Unreachable as error:
                self._wait(error)

    def _ship(self, *, is_last: bool = False) -> None:
        """The newest checkpoint that is whole, and all the rest, where there is something new."""
        try:
            data = (self.folder / "outbox" / OUTBOX_FILE).read_bytes()
        except FileNotFoundError:
            return
        if data == self.shipped:
            return
        box, files = json.loads(data), {}
        packs = {ref["path"] for ref in box["checkpoints"]}
        kept = []
        try:
            for ref in reversed(box["checkpoints"]):
                if self._send(ref["path"], box["files"][ref["path"]], is_last):
                    kept, files = [ref], {ref["path"]: box["files"][ref["path"]]}
                    break
            for name in box["files"].keys() - packs:
                if self._send(name, box["files"][name], is_last):
                    files[name] = box["files"][name]
        except FileNotFoundError:
            return  # an older checkpoint was dropped meanwhile: the next look finds a newer one
        text = canonical_json({"checkpoints": kept, "files": files, "sealed": box["sealed"]}).decode()
        answer = self.node.ask(f"/segments/{self.key}/outbox", {"box": text}) or {}
        if answer.get("missing"):
            raise Unreachable(f"{answer['missing'][0]} did not arrive whole")  # sent again with the next look
        self.shipped = data
        if kept:
            self.say(f"{self.key}: the checkpoint of step {kept[0]['step']} is home")

    def _send(self, name: str, digest: str, is_last: bool) -> bool:
        """Whether the node has it whole; a link keeps what the trainer drops meanwhile."""
        hexed = digest.removeprefix("sha256:")
        link = self.folder / "sending" / hexed
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            _link(self.folder / "outbox" / name, link)
        try:
            self.node.upload(f"/segments/{self.key}/outbox/{hexed}", link, self._beat)
            return True
        except Broken as error:
            if is_last:
                self.problem = f"{name} on the worker: {error}"
            return False
        finally:
            link.unlink(missing_ok=True)

    def _leave_nothing_open(self) -> None:
        """Of sealed data nothing readable stays, nor its key; the events hold numbers only."""
        if not self.order["sealed"]:
            return
        events = self.folder / "work" / "out" / "events.jsonl"
        if events.exists():
            write_whole(self.folder / "events.jsonl", events.read_bytes())
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        (self.folder / "segment.key").unlink(missing_ok=True)
        write_whole(self.folder / "order.json", canonical_json(self.order | {"key": None}))

    # Speaking to the node

    def _beat(self, state: str = "running") -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self.order["report_s"]
            self._report(state)
            self._heed()

    def _report(self, state: str, code: int | str | None = None) -> bool:
        """Whether there is more to tell: of events and log, whose texts go in pieces."""
        tails = {name: self._tail(name) for name in ("events", "log")}
        more = any(text for text in tails.values())
        fields: Fields = {"state": state, "code": code}
        fields |= {"problem": self.problem and self.problem[:500]}
        fields |= {name: {"from": self.sent.get(name, 0), "text": text} for name, text in tails.items()}
        answer = self.node.ask(f"/segments/{self.key}/report", fields) or {}
        has_more = more and answer["has"] != self.sent
        self.sent = dict(answer["has"])
        if self.lost_since is not None:
            self.say(f"{self.key}: the node answers again")
            self.lost_since = None
        if answer["renew"]:
            self.heard = time.monotonic()
            with suppress(OSError):
                self._touch_lease()
        if answer["want"] != "go":
            self.want = answer["want"]
        return has_more

    def _tail(self, name: str) -> str:
        """What the node does not have yet; of events, whole lines."""
        if name == "log":
            paths = [self.folder / "log.txt"]
        else:
            paths = [self.folder / "work" / "out" / "events.jsonl", self.folder / "events.jsonl"]
        for path in paths:
            with suppress(FileNotFoundError), path.open("rb") as stream:
                stream.seek(self.sent.get(name, 0))
                data = stream.read(TAIL_BYTES)
                whole = data if name == "log" else data[: data.rfind(b"\n") + 1]
                return whole.decode("utf-8", "replace")
        return ""

    def _note_lost(self, error: Unreachable) -> None:
        """Said once; asked again soon at first, then every 15 s."""
        now = time.monotonic()
        if self.lost_since is None:
            self.lost_since = now
            self.say(f"{self.key}: {error}; it is tried again by itself")
        self.due = now + min(15.0, max(self.order["report_s"], (now - self.lost_since) / 4))

    def _wait(self, error: Unreachable) -> None:
        self._note_lost(error)
        time.sleep(max(0.0, self.due - time.monotonic()))


class _NotWanted(Exception):
    """Paused, cancelled or stopped before it began."""


def _end_with_me() -> None:
    """In the trainer before it begins: SIGTERM when this worker dies, so that it saves a checkpoint (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGTERM)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        scratch = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, scratch)
        scratch.replace(target)
