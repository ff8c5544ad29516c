"""A machine that can only reach out works for a node: it joins once, waits for segments, and trains them.

    python -I worker.pyz join URL [TOKEN] [--folder DIR] [--insecure]

The token is good once; from then on a key that was made here and lies in the folder speaks for this worker, so that the
same command goes on after a restart. Private data is sealed for another key of this process, so that whoever runs a
tunnel on the way reads none of it. Standard library, and pyrage where private data is to come. Exit codes: 0 when the
node or the person here ended it, 2 for what has to be mended here.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from elias_trainer.calls import Dismissed, Fields, Node, NotTaken, Unreachable
from elias_trainer.contract import canonical_json, write_whole
from elias_trainer.errand import Errand
from elias_trainer.machine import OLDEST_PYTHON, describe

POLL_S = 25.0
"""How long the node keeps a question open while it has nothing to do."""
MOST_WAIT_S = 15.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="join", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url", help="of the node's door for workers: https://…")
    parser.add_argument(
        "token", nargs="?", help="from `elias worker token`; not needed where this machine joined before"
    )
    parser.add_argument("--folder", type=Path, default=Path("~/elias-worker"), help="default: ~/elias-worker")
    parser.add_argument("--insecure", action="store_true", help="allow http:// to another machine")
    parser.add_argument("--json", action="store_true", help="what is said, as a JSON object a line")
    options = parser.parse_args(arguments)
    say.in_json = options.json
    os.umask(0o077)
    try:
        if sys.version_info < OLDEST_PYTHON:
            raise NotTaken(f"this is Python {sys.version.split()[0]}, and 3.11 is needed")
        Worker(options.url, options.folder.expanduser(), is_insecure_meant=options.insecure).work(options.token)
    except Dismissed as error:
        say(f"the node knows this worker no more: {error}")
    except NotTaken as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        say("stopped; what was not sent stays in the folder, and goes home when this machine joins again")
    return 0


class Worker:
    """Keeps in its folder: session.json (0600), busy.lock, segments/."""

    def __init__(self, url: str, folder: Path, *, is_insecure_meant: bool = False) -> None:
        self.node = Node(url, is_insecure_meant=is_insecure_meant)
        self.folder = folder / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:12]
        self.is_to_stop = threading.Event()
        self._is_idle = False
        self._identity: str | None = None

    def work(self, token: str | None) -> None:
        """Until the person here or the node ends it. Raises Dismissed, NotTaken, KeyboardInterrupt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _only_one(self.folder / "busy.lock"):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._stop)
            self.node.credential = self._session(token)
            try:
                if token:
                    self._join(token)
                self._serve()
            except Dismissed:
                (self.folder / "session.json").unlink(missing_ok=True)
                raise

    def _session(self, token: str | None) -> str:
        """This worker's credential; made here, and never sent but as what it is."""
        path = self.folder / "session.json"
        if not path.exists():
            if token is None:
                raise NotTaken("this machine has not joined that node: give a token, from `elias worker token` there")
            secret = secrets.token_urlsafe(32)
            worker = f"w-{hashlib.sha256(secret.encode()).hexdigest()[:10]}"
            write_whole(path, canonical_json({"worker": worker, "secret": secret}))
        found = json.loads(path.read_bytes())
        return f"{found['worker']}.{found['secret']}"

    def _join(self, token: str) -> None:
        worker, _, secret = str(self.node.credential).partition(".")
        proof = hashlib.sha256(secret.encode()).hexdigest()
        asked = {"token": token, "worker": worker, "proof": proof, "machine": self._machine()}
        answer = self._until_answered("/join", asked) or {}
        say(f"joined {answer['node']} as {worker}")

    def _serve(self) -> None:
        for left in sorted((self.folder / "segments").glob("*/order.json")):
            self._carry_out(json.loads(left.read_bytes()), left.parent)
        say("waiting for work; Ctrl-C ends it")
        while not self.is_to_stop.is_set():
            try:
                order = self._until_answered("/work", {"machine": self._machine(), "wait_s": POLL_S})
            except _Idle:
                self.node.close()
                break
            if order is None:
                continue
            folder = self.folder / "segments" / order["segment"]
            folder.mkdir(parents=True, exist_ok=True)
            if order.get("key"):
                order["key"] = self._opened(order["key"])
            write_whole(folder / "order.json", canonical_json(order))
            self._carry_out(order, folder)
        with suppress(Unreachable):
            self.node.ask("/leave", {}, within_s=10.0)
        say("left")

    def _carry_out(self, order: Fields, folder: Path) -> None:
        Errand(node=self.node, folder=folder, order=order, say=say, is_to_stop=self.is_to_stop).carry_out()

    def _until_answered(self, path: str, fields: Fields) -> Fields | None:
        wait_s, was_lost = 0.5, False
        while True:
            try:
                self._is_idle = True
                if self.is_to_stop.is_set():
                    return None
                return self.node.ask(path, fields)
            except Unreachable as error:
                if not was_lost:
                    say(f"{error}; it is tried again by itself")
                was_lost, wait_s = True, min(wait_s * 2, MOST_WAIT_S)
                time.sleep(wait_s)
            finally:
                self._is_idle = False

    def _machine(self) -> Fields:
        found = describe(self.folder) | {"is_private": self.node.is_private, "recipient": None}
        if "pyrage" not in found["lacks"]:
            import pyrage

            identity = self._identity = self._identity or str(pyrage.x25519.Identity.generate())
            found["recipient"] = str(pyrage.x25519.Identity.from_str(identity).to_public())
        return found

    def _opened(self, sealed: str) -> str:
        import pyrage

        identity = pyrage.x25519.Identity.from_str(str(self._identity))
        return bytes(pyrage.decrypt(base64.b64decode(sealed), [identity])).decode()

    def _stop(self, number: int, frame: object) -> None:
        """Once: the trainer saves a checkpoint, which goes home. Twice, or while nothing is to be done: at once."""
        if self.is_to_stop.is_set():
            raise KeyboardInterrupt
        self.is_to_stop.set()
        say("stopping; again to stop at once")
        if self._is_idle:
            raise _Idle


class _Idle(KeyboardInterrupt):
    """Raised into a question that the node keeps open."""


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotTaken(f"another worker of this machine works for that node already ({path.parent})") from error
        yield


class _Say:
    in_json = False

    def __call__(self, line: str) -> None:
        at = time.strftime("%H:%M:%S")
        print(json.dumps({"at": at, "said": line}) if self.in_json else f"{at} {line}", flush=True)


say = _Say()
