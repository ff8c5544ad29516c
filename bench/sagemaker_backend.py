"""What the SageMaker backend costs beside the training itself, against the emulated AWS. JSON lines.

`transfer`: files to S3 and home, beside `aws s3 cp` of the same bytes, in turns; sealed ones too, with the sealing.
`submit`: from `submit` to SageMaker's answer. `polling`: 100 jobs under way, calls a minute and CPU.
    make bench-sagemaker     or: python bench/sagemaker_backend.py [--megabytes 200] [--jobs 100] [--seconds 60]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import sagemaker_kills

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.backends.sagemaker.bucket import Bucket, Sent
from elias.adapters.clock import SystemClock
from elias.domain.offer import Offer
from elias.ports.backend import BackendContext
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.sagemaker_emulator import Disk, Fault, FaultKind
from elias_trainer.contract import digest_file
from elias_trainer.parcel import pack

SETTINGS = {"region": "us-east-1", "instance": "ml.g5.xlarge"}
TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sagemaker_kills.set_environment(folder)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        world = sagemaker_kills.World(home=folder / "node", run="", disk=Disk(folder / "aws"), port=port)
        with world.served():
            print(json.dumps(transfer(world, folder, given.megabytes)), flush=True)
            print(json.dumps(submit(world, folder)), flush=True)
            print(json.dumps(polling(world, folder, given.jobs, given.seconds)), flush=True)


def transfer(world: Any, folder: Path, megabytes: int) -> dict[str, Any]:
    source = folder / "large.bin"
    source.write_bytes(os.urandom(megabytes * 10**6))
    backend = make_backend(world, folder / "transfer")
    bucket = Bucket(backend._clients, backend._clients.bucket(), folder / "uploads")
    sent = Sent(kms_key="alias/elias", tags={"elias:node": "bench"})
    digest = digest_file(source)
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    took: dict[str, list[float]] = {}

    def timed(what: str, act: Callable[[], object]) -> None:
        began = time.monotonic()
        act()
        took.setdefault(what, []).append(time.monotonic() - began)

    for turn in range(TURNS):
        key, theirs = f"bench/{turn}/ours", f"s3://{bucket.name}/bench/{turn}/theirs"
        sealed = folder / f"sealed-{turn}"
        timed("aws s3 cp up", lambda to=theirs: aws(world, "s3", "cp", str(source), to, "--sse", "aws:kms"))
        timed("up", lambda key=key: bucket.send(source, key, sent))
        timed(
            "sealed up", lambda key=key, to=sealed: (pack(source, to, (recipient,)), bucket.send(to, f"{key}s", sent))
        )
        timed("aws s3 cp down", lambda of=theirs: aws(world, "s3", "cp", of, str(folder / "theirs")))
        timed("down", lambda key=key: bucket.fetch(key, folder / "ours", largest=10**12, digest=digest))
        timed("aws starts", lambda: aws(world, "--version"))
        for path in (sealed, folder / "theirs", folder / "ours"):
            path.unlink()
        bucket.delete_under("bench/")
    starts_s = min(took["aws starts"])
    rates = {what: round(megabytes / statistics.median(spans), 1) for what, spans in took.items()}
    rates.pop("aws starts")
    for way in ("up", "down"):
        bare = [span - starts_s for span in took[f"aws s3 cp {way}"]]
        rates[f"aws s3 cp {way}, its start taken off"] = round(megabytes / statistics.median(bare), 1)
    backend.close()
    return {
        "bench": "sagemaker.transfer",
        "where": "emulated",
        "megabytes": megabytes,
        "mb_per_s": rates,
        "aws_starts_s": round(starts_s, 2),
    }


def submit(world: Any, folder: Path) -> dict[str, Any]:
    backend = make_backend(world, folder / "submit", poll_every="0s")
    spans: list[dict[str, float]] = []
    for number in range(1, 6):
        key = f"submit-{number:04d}"
        bundle = make_bundle(folder / "bundles" / key, key, Wanted())
        offer = _offer(backend, bundle)
        began = time.monotonic()
        handle = backend.submit(key, bundle, offer)
        packed = time.monotonic()
        backend.poll(handle)
        spans.append({"pack": packed - began, "send": time.monotonic() - packed})
        while not backend.poll(handle).state.is_final:
            time.sleep(0.05)
    backend.close()
    phases = {name: round(statistics.median(span[name] for span in spans), 3) for name in spans[0]}
    return {"bench": "sagemaker.submit", "where": "emulated", "seconds": phases, "first_send_s": spans[0]["send"]}


def polling(world: Any, folder: Path, jobs: int, seconds: float) -> dict[str, Any]:
    world.disk.configure(default_quota=jobs)
    world.disk.faults.add(Fault(kind=FaultKind.NEVER_STARTS, times=jobs))
    starter = make_backend(world, folder / "polling", poll_every="0s", calls_per_minute=1_000_000)
    for number in range(jobs):
        key = f"polling{number}-0001"
        bundle = make_bundle(folder / "bundles" / key, key, Wanted())
        starter.poll(starter.submit(key, bundle, _offer(starter, bundle)))
        shutil.rmtree(folder / "bundles" / key)
    backend = make_backend(world, folder / "polling")
    before, cpu, began = len(world.disk.requests()), time.process_time(), time.monotonic()
    while time.monotonic() - began < seconds:
        for number in range(jobs):
            backend.poll(f"polling{number}-0001")
            list(backend.events(f"polling{number}-0001", -1))
        time.sleep(max(0.0, 0.5 - (time.monotonic() - began) % 0.5))
    spent, minutes = time.process_time() - cpu, (time.monotonic() - began) / 60
    calls = Counter(request["call"] for request in world.disk.requests()[before:])
    starter.close()
    backend.close()
    return {
        "bench": "sagemaker.polling",
        "where": "emulated",
        "jobs": jobs,
        "calls_per_minute": {call: round(count / minutes, 1) for call, count in sorted(calls.items())},
        "cpu_share": round(spent / (minutes * 60), 3),
    }


def make_backend(world: Any, home: Path, **settings: Any) -> SageMakerBackend:
    context = BackendContext(
        name="sagemaker",
        node="bench",
        home=home,
        settings={**SETTINGS, "endpoint_url": world.url, **settings},
        clock=SystemClock(),
        node_key=str(pyrage.x25519.Identity.generate()),
    )
    return SageMakerBackend(context)


def aws(world: Any, *words: str) -> None:
    command = shutil.which("aws")
    if command is None:
        raise SystemExit("the aws command line is not installed here: there is nothing to compare with")
    endpoint = ["--endpoint-url", world.url] if words[0] == "s3" else []
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}
    subprocess.run([command, *endpoint, *words], check=True, capture_output=True, env=environment)


def _offer(backend: SageMakerBackend, bundle: Any) -> Offer:
    return next(offer for offer in backend.offers(need_of(bundle)) if offer.variant == "ml.g5.xlarge")


if __name__ == "__main__":
    main()
