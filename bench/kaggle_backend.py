"""What the Kaggle backend costs beside the training itself, against the emulated service. JSON lines.

`overhead`: a 100 MB corpus to Kaggle, a job that trains nothing, its output home; beside the bare upload of the same
bytes with the official client, both in this run, and the part of it that the session itself took over there. With the
default pace, and with one that asks all the time. `polling`: segments that run, each with its log open, and segments
that wait for a session; calls of each minute, and the CPU of this side alone.
    make bench-kaggle        or: python bench/kaggle_backend.py [--megabytes 100] [--runs 100] [--minutes 4]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.backends.kaggle.ledger import Entry, Ledger
from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.ports.backend import BackendContext, Bundle
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias.testing.kaggle_emulator import Beside, Disk, KaggleEmulator
from elias.testing.ports import free_port
from elias_trainer.contract import Input, Recipe, digest_file, to_json, write_whole

LONG = Recipe(max_steps=1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--minutes", type=int, default=4)
    parser.add_argument("--only", choices=["overhead", "polling"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": f"{folder}/config"}
        os.environ.pop("KAGGLE_API_TOKEN", None)
        if given.only != "polling":
            for number, pace in enumerate(({}, {"poll_every": "0.2s"})):
                with KaggleEmulator(folder / f"emulated-{number}") as emulated:
                    report = overhead(emulated, folder / f"overhead-{number}", given.megabytes, pace)
                print(json.dumps(report), flush=True)
        if given.only != "overhead":
            for running, waiting in ((given.runs, 0), (2, given.runs - 2)):
                with served(folder / f"served-{running}") as emulated:
                    report = polling(emulated, folder / f"polling-{running}", (running, waiting), given.minutes)
                print(json.dumps(report), flush=True)


def overhead(emulated: KaggleEmulator, folder: Path, megabytes: int, pace: dict[str, Any]) -> dict[str, Any]:
    backend = make_backend(emulated.url, folder / "node", pace)
    bundle = big_bundle(folder / "bundle", megabytes)
    began = time.monotonic()
    handle = backend.submit("bench-0001", bundle, backend.offers(need_of(bundle))[0])
    marks = {"packed": time.monotonic() - began}
    while not (status := backend.poll(handle)).state.is_final:
        list(backend.events(handle, -1))
        if status.note == "pushed":
            marks.setdefault("pushed", time.monotonic() - began)
        time.sleep(0.05)
    backend.fetch(handle, folder / "home")
    whole = time.monotonic() - began
    [session] = [session for _, session in emulated.disk.sessions()]
    bare = bare_upload(backend, bundle, folder / "bare")
    return {
        "bench": "kaggle.overhead",
        "where": "emulated",
        "corpus_mb": megabytes,
        "poll_every_s": backend.settings.poll_every.total_seconds(),
        "seconds": round(whole, 2),
        "after_s": {name: round(at, 2) for name, at in marks.items()},
        "session_s": round(session["ended_at"] - session["started_at"], 2),
        "bare_upload_s": round(bare, 2),
        "times_the_bare_upload": round(whole / bare, 2),
    }


def polling(emulated: Beside, folder: Path, runs: tuple[int, int], minutes: int) -> dict[str, Any]:
    """One kernel that goes on for hours stands for all that run, each under a name of its own."""
    running, waiting = runs
    backend = make_backend(emulated.url, folder / "node", {"sessions_at_once": running})
    bundle = make_bundle(folder / "long", "long-0001", Wanted(base=fake_base(step_s=5.0), recipe=LONG))
    backend.submit("long-0001", bundle, backend.offers(need_of(bundle))[0])
    while backend.poll("long-0001").state != "running":
        time.sleep(0.1)
    ledger, [kernel] = Ledger(folder / "node"), emulated.disk.root.glob("kernels/ada/*")
    first = ledger.get("long-0001")
    assert isinstance(first, Entry)
    shutil.rmtree(ledger.folder("long-0001"))
    for name in [f"runs{number}" for number in range(running)]:
        kernel.with_name(name).symlink_to(kernel)
        ledger.put(replace(first, key=f"{name}-0001", kernel=name))
    for name in [f"waits{number}" for number in range(waiting)]:
        ledger.put(replace(first, key=f"{name}-0001", kernel=name, pushed_at=None, push_sent_at=None))
    counts, cpu, began = [len(calls(emulated))], time.process_time(), time.monotonic()
    seen = {entry.key: -1 for entry in ledger.entries()}
    for minute in range(1, minutes + 1):
        while time.monotonic() - began < 60 * minute:
            for key in seen:
                backend.poll(key)
                seen[key] = max([seen[key], *(int(event["seq"]) for event in backend.events(key, seen[key]))])
            time.sleep(0.5)  # as often as the coordinator asks
        counts.append(len(calls(emulated)))
    return {
        "bench": "kaggle.polling",
        "where": "emulated",
        "running": running,
        "waiting": waiting,
        "calls_of_each_minute": [after - before for before, after in pairwise(counts)],
        "logs_opened": len(emulated.disk.requests("logs")),
        "cpu_share": round((time.process_time() - cpu) / (time.monotonic() - began), 4),
        "newest_event": sorted(set(seen.values()))[-3:],
        "poll_every_s": backend.settings.poll_every.total_seconds(),
    }


def calls(emulated: Beside) -> list[dict[str, Any]]:
    return [request for request in emulated.disk.requests() if request["call"] != "logs"]


@contextmanager
def served(root: Path) -> Iterator[Beside]:
    """The emulator in a process of its own, so that its CPU is not counted."""
    port = free_port()
    command = [sys.executable, "-m", "elias.testing.kaggle_emulator", "--root", str(root), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    disk = Disk(root)
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield Beside(disk=disk, url=f"http://127.0.0.1:{port}")
    finally:
        for version, _ in disk.sessions():
            write_whole(version / "stop.json", b'{"status": "CANCEL_ACKNOWLEDGED"}')
        process.terminate()
        process.wait()


def make_backend(url: str, home: Path, settings: dict[str, Any]) -> KaggleBackend:
    home.mkdir(parents=True, exist_ok=True)
    script = home / "template.py"
    script.write_text(as_script(template_text()))
    own = {"base_url": url, "template": str(script), **settings}
    return KaggleBackend(BackendContext(name="kaggle", node="bench", home=home, settings=own, clock=SystemClock()))


def big_bundle(folder: Path, megabytes: int) -> Bundle:
    bundle = make_bundle(folder, "bench-0001", Wanted(recipe=Recipe(max_steps=1)))
    (folder / "corpus.jsonl").write_bytes(random.Random(0).randbytes(megabytes * 10**6))
    corpus = Input(path="corpus.jsonl", digest=digest_file(folder / "corpus.jsonl"))
    job = replace(bundle.job, corpus=corpus)
    write_whole(folder / "job.json", to_json(job))
    return replace(bundle, job=job)


def bare_upload(backend: KaggleBackend, bundle: Bundle, folder: Path) -> float:
    folder.mkdir()
    (folder / "corpus.jsonl").write_bytes((bundle.folder / "corpus.jsonl").read_bytes())
    client = backend._client
    began = time.monotonic()
    client.put_dataset("bare-upload", folder, "bare", replace=True)
    while client.dataset_state("bare-upload") != "ready":
        time.sleep(0.02)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
