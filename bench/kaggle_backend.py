"""What the Kaggle backend costs beside the training itself, against the emulated service. JSON lines.

`overhead`: a 100 MB corpus to Kaggle, a job that trains nothing, its output home; beside the bare upload of the same
bytes with the official client, both in this run. `polling`: 100 segments under way, calls a minute and CPU.
    make bench-kaggle        or: python bench/kaggle_backend.py [--megabytes 100] [--runs 100] [--seconds 60]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.backends.kaggle.ledger import Entry, Ledger
from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.ports.backend import BackendContext, Bundle
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.kaggle_emulator import KaggleEmulator
from elias.units import rfc3339
from elias_trainer.contract import Input, Recipe, digest_file, to_json, write_whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "none", "KAGGLE_CONFIG_DIR": f"{folder}/config"}
        os.environ.pop("KAGGLE_API_TOKEN", None)
        with KaggleEmulator(Path(folder) / "emulated") as emulated:
            print(json.dumps(overhead(emulated, Path(folder), given.megabytes)), flush=True)
            print(json.dumps(polling(emulated, Path(folder), given.runs, given.seconds)), flush=True)


def overhead(emulated: KaggleEmulator, folder: Path, megabytes: int) -> dict[str, Any]:
    backend = make_backend(emulated, folder / "node", {"poll_every": "0.2s"})
    bundle = big_bundle(folder / "bundle", megabytes)
    began = time.monotonic()
    handle = backend.submit("bench-0001", bundle, backend.offers(need_of(bundle))[0])
    phases = {"pack": time.monotonic() - began}
    while backend.poll(handle).note not in ("pushed", "found again on Kaggle"):
        time.sleep(0.05)
    phases["send"] = time.monotonic() - began - sum(phases.values())
    while not backend.poll(handle).state.is_final:
        time.sleep(0.05)
    phases["session"] = time.monotonic() - began - sum(phases.values())
    backend.fetch(handle, folder / "home")
    whole = time.monotonic() - began
    bare = bare_upload(backend, bundle, folder / "bare")
    return {
        "bench": "kaggle.overhead",
        "where": "emulated",
        "corpus_mb": megabytes,
        "seconds": round(whole, 2),
        "phases_s": {name: round(span, 2) for name, span in phases.items()},
        "bare_upload_s": round(bare, 2),
        "times_the_bare_upload": round(whole / bare, 2),
    }


def polling(emulated: KaggleEmulator, folder: Path, runs: int, seconds: float) -> dict[str, Any]:
    """One kernel that never ends stands for all: what is measured is this side's calls and CPU."""
    settings = {"sessions_at_once": runs + 1}
    backend = make_backend(emulated, folder / "many", settings)
    bundle = make_bundle(folder / "long", "long-0001", Wanted(recipe=Recipe(max_steps=10_000_000)))
    backend.submit("long-0001", bundle, backend.offers(need_of(bundle))[0])
    quick = make_backend(emulated, folder / "many", settings | {"poll_every": "0s"})
    while quick.poll("long-0001").state != "running":
        time.sleep(0.1)
    ledger = Ledger(folder / "many")
    first = ledger.get("long-0001")
    assert isinstance(first, Entry)
    keys = [f"many{number}-0001" for number in range(runs)]
    for key in keys:
        ledger.put(replace(first, key=key, pushed_at=rfc3339(SystemClock().now())))
    before, cpu, began = len(emulated.disk.requests()), time.thread_time(), time.monotonic()
    while time.monotonic() - began < seconds:
        for key in keys:
            backend.poll(key)
            list(backend.events(key, -1))
        time.sleep(0.5)  # as often as the coordinator asks
    span = time.monotonic() - began
    calls = len(emulated.disk.requests()) - before
    return {
        "bench": "kaggle.polling",
        "where": "emulated",
        "runs": runs,
        "seconds": round(span, 1),
        "calls_a_minute": round(calls * 60 / span),
        "cpu_share": round((time.thread_time() - cpu) / span, 4),
        "poll_every_s": backend.settings.poll_every.total_seconds(),
    }


def make_backend(emulated: KaggleEmulator, home: Path, settings: dict[str, Any]) -> KaggleBackend:
    home.mkdir(parents=True, exist_ok=True)
    script = home / "template.py"
    script.write_text(as_script(template_text()))
    own = {"base_url": emulated.url, "template": str(script), **settings}
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
