"""Kills the coordinator of a run on the emulated SageMaker with -9 at each request that it makes to AWS, and counts
what was lost, done or paid for twice. A run is two chained segments with private data; each kill has a run of its own,
which another process then goes on with.

    python bench/sagemaker_kills.py                      every request of the undisturbed run, at each of three moments
    python bench/sagemaker_kills.py --requests 1-9,14    some of them
    python bench/sagemaker_kills.py --moments reached    of: unsent, reached (no answer yet), answered (not acted on)

Prints one JSON line; exits 1 when a step, a job or a cent was lost or repeated, or anything was left behind.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.clock import SystemClock
from elias.config.schema import Config
from elias.config.schema import Training as TrainingConfig
from elias.domain.label import Label
from elias.domain.run import Bounds, Run, RunState, Segment
from elias.services.runs import Wanted, new_run
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import CORPUS, small_corpus
from elias.testing.fake_trainer import build_fake_trainer, expected_adapter, fake_base
from elias.testing.sagemaker_emulator import Disk
from elias.units import Clock, Money
from elias.wiring.attest import make_node
from elias.wiring.stores import Stores, open_stores
from elias.wiring.train import Parts, Training, open_training
from elias_trainer.contract import Digest, Recipe, digest_file

STEPS, FIRST_STEPS = 24, 14
MOMENTS = ("unsent", "reached", "answered")
PATIENCE_S = 120.0
REGION, ACCOUNT = "us-east-1", "123456789012"
BUCKET, ROLE, KEY_ALIAS = f"elias-{ACCOUNT}-{REGION}", f"elias-training-{REGION}", "alias/elias"
OUTSIDE_KEY = "EMULATEDSERVICE"
"""Calls signed with it are not recorded: the set-up, and looks from outside."""
forked = multiprocessing.get_context("fork")
"""Each process of a node begins as a copy of this one, which has imported everything and started no thread."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", help="such as 1-9,14; by default all")
    parser.add_argument("--moments", default=",".join(MOMENTS))
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="elias-sagemaker-kills-"))
    set_environment(home)
    import_everything()
    kills = Kills(home)
    report = kills.run(_numbers(given.requests) if given.requests else None, given.moments.split(","))
    print(json.dumps(report))
    if report["wrong"]:
        print(f"kept for a look: {home}", file=sys.stderr)
        return 1
    shutil.rmtree(home)
    return 0


def set_environment(home: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        os.environ.pop(name, None)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_CONFIG_FILE": str(home / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def import_everything() -> None:
    import dbos  # noqa: F401 # a second saved in each process

    import elias.adapters.backends.sagemaker.backend
    import elias.testing.sagemaker_emulator.app  # noqa: F401

    if threading.active_count() > 1:
        raise SystemExit("an import has started a thread: processes cannot be copied from here")


@dataclass
class Kills:
    home: Path
    wrong: list[str] = field(default_factory=list)
    landed: Counter[str] = field(default_factory=Counter)
    calls: dict[int, str] = field(default_factory=dict)
    """Of the undisturbed run: the call that each request was."""

    def run(self, numbers: Sequence[int] | None, moments: Sequence[str]) -> dict[str, Any]:
        began = time.monotonic()
        requests = self.one(None)
        self.calls = {number: request["call"] for number, request in enumerate(requests, start=1)}
        chosen = sorted(self.calls) if numbers is None else [n for n in numbers if n in self.calls]
        for number in chosen:
            for moment in moments:
                self.one(Death(number=number, moment=moment))
        return {
            "bench": "sagemaker.kills",
            "where": "emulated",
            "requests": len(self.calls),
            "calls": dict(Counter(self.calls.values())),
            "tried": len(chosen) * len(moments),
            "killed": self.landed.total(),
            "moments": dict(self.landed),
            "wrong": self.wrong,
            "seconds": round(time.monotonic() - began, 1),
        }

    def one(self, death: Death | None) -> list[dict[str, Any]]:
        """One run, killed or left alone, checked; the requests that AWS received."""
        what = f"killed with request {death.number} {death.moment}" if death else "left alone"
        folder = self.home / what.replace(" ", "-")
        world = World.prepare(folder)
        with Served(world):
            if death:
                self.landed[death.moment] += carried(world, death) == -signal.SIGKILL
            code = carried(world, None)
            found = [] if code == 0 else [f"the process that goes on with it ended with {code}"]
            found += world.faults()
        requests = world.disk.requests()
        self.wrong += [f"{what}: {fault}" for fault in found]
        print(f"{what}: {'; '.join(found) or 'as if nothing had been'}", file=sys.stderr, flush=True)
        if not found:
            shutil.rmtree(folder)
        return requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """Of the process that makes the request, which it counts from 1."""

    number: int
    moment: str


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A node with a run that is to begin, and the AWS that it knows."""

    home: Path
    run: str
    disk: Disk
    port: int

    @classmethod
    def prepare(cls, folder: Path) -> World:
        home = folder / "node"
        home.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        config = config_of(home, f"http://127.0.0.1:{port}")
        make_node(config)
        with open_stores(config) as stores:
            corpus = small_corpus(FolderBlobs(home / "blobs"), Label.PRIVATE, SystemClock().now())
            stores.corpora.add(corpus)
        run = new_run(wanted(STEPS, segment_steps=FIRST_STEPS), corpus, SystemClock())
        return cls(home=home, run=_in_a_process(_begin, config, run), disk=Disk(folder / "aws"), port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self) -> Config:
        return config_of(self.home, self.url)

    def faults(self) -> list[str]:
        """What is not as after a run that nothing disturbed."""
        with open_stores(self.config()) as stores:
            run, segments = stores.runs.get(self.run), stores.runs.segments(self.run)
            steps = steps_of(stores, run)
        jobs = [record for _, record in self.disk.jobs()]
        billed = [Money.usd("1.408").for_hours(timedelta(seconds=job["BillableTimeInSeconds"])) for job in jobs]
        s3 = client(self.url, "s3")
        try:
            versions = s3.list_object_versions(Bucket=BUCKET).get("Versions", [])
        finally:
            s3.close()
        left = [entry["Key"] for entry in versions if "/artifacts/" not in entry["Key"]]
        found = {
            "adapter": (run.artifact, expected_adapter(CORPUS, STEPS)),
            "steps": (steps, list(range(1, STEPS + 1))),
            "ends of segments": ([s.end.step for s in segments if s.end], [FIRST_STEPS, STEPS]),
            "jobs": (len(jobs), 2),
            "cost": (sorted(s.cost for s in segments), sorted(billed)),
            "left in S3": (left, []),
            "keys left here": (_names(self.home, "**/segment.key"), []),
        }
        return [f"{name}: {is_} instead of {due}" for name, (is_, due) in found.items() if is_ != due]


class Served:
    """The emulator in a process of its own, since it needs threads and this process may have none."""

    def __init__(self, world: World) -> None:
        self._stop, self._ready = forked.Event(), forked.Event()
        self._process = forked.Process(target=self._serve, args=(world,))

    def _serve(self, world: World) -> None:
        from elias.testing.sagemaker_emulator import SageMakerEmulator

        with SageMakerEmulator(world.disk.root, world.port):
            set_up(world.url)
            self._ready.set()
            self._stop.wait()

    def __enter__(self) -> None:
        self._process.start()
        if not self._ready.wait(PATIENCE_S):
            raise SystemExit("the emulator did not start")

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join()


def client(url: str, service: str) -> Any:
    import boto3
    from botocore.config import Config as BotoConfig

    session = boto3.Session(aws_access_key_id=OUTSIDE_KEY, aws_secret_access_key="none", region_name=REGION)
    return session.client(service, endpoint_url=url, config=BotoConfig(proxies={}))


def set_up(url: str) -> None:
    """What `elias aws setup` makes, as far as a job needs it."""
    s3, kms, iam = (client(url, service) for service in ("s3", "kms", "iam"))
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    kms.create_alias(AliasName=KEY_ALIAS, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))


def carried(world: World, death: Death | None) -> int | None:
    """The exit code of a coordinator's process; None when it had to be stopped because nothing came of it."""
    process = forked.Process(target=carry, args=(world.config(), world.run, death, world.disk))
    process.start()
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def carry(config: Config, run_id: str, death: Death | None, disk: Disk) -> None:
    """What a node does: becomes the engine, and goes on with the run until it has ended."""
    if death:
        Hook(death, disk).install()
    with open_training(config, parts_of(config.home)) as training:
        quick(training).launch()
        while not (run := training.stores.runs.get(run_id)).state.is_final:
            if run.state is RunState.FAILED:
                sys.exit(f"failed: {run.reason}")
            time.sleep(0.02)


class Hook:
    """Ends this process as by -9 at one of its requests."""

    def __init__(self, death: Death, disk: Disk) -> None:
        self._death = death
        self._disk = disk
        self._count = 0
        self._lock = threading.Lock()
        self._mine = threading.local()
        """The number of the request that a thread is at."""

    def install(self) -> None:
        """Around what crosses the wire, in the libraries that boto3 uses."""
        from botocore.httpsession import URLLib3Session
        from urllib3.connection import HTTPConnection

        send, answer = URLLib3Session.send, HTTPConnection.getresponse

        def counted(session: Any, request: Any) -> Any:
            with self._lock:
                self._count += 1
                self._mine.number = self._count
            self._die_if("unsent")
            response = send(session, request)
            self._die_if("answered")
            return response

        def watched(connection: Any, *arguments: Any, **options: Any) -> Any:
            if self._is_it("reached"):
                while len(self._disk.requests()) < self._death.number:
                    time.sleep(0.002)  # until AWS has it
                self._die_if("reached")
            return answer(connection, *arguments, **options)

        URLLib3Session.send = counted
        HTTPConnection.getresponse = watched  # type: ignore[method-assign] # the vendor's, to count

    def _is_it(self, moment: str) -> bool:
        return self._death.moment == moment and getattr(self._mine, "number", 0) == self._death.number

    def _die_if(self, moment: str) -> None:
        if self._is_it(moment):
            os.kill(os.getpid(), signal.SIGKILL)


def config_of(home: Path, url: str, **settings: Any) -> Config:
    quick = {
        "region": REGION,
        "endpoint_url": url,
        "instance": "ml.g5.xlarge",
        "spot": "never",
        "poll_every": "0.2s",
        "calls_per_minute": 1_000_000,
        "http_read": "10s",
    }
    training = TrainingConfig(checkpoint_every=timedelta(seconds=0.5))
    return Config(home=home, training=training, backends={"sagemaker": quick | settings})


def parts_of(home: Path, clock: Clock | None = None) -> Parts:
    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        return digest_file(out / "adapter" / "adapter_model.safetensors")

    return Parts(
        archive=build_fake_trainer, finish=finish, blobs=FolderBlobs(home / "blobs"), clock=clock or SystemClock()
    )


def quick(training: Training) -> Training:
    """One that looks after its segments more often than a real one has to."""
    training.coordinator.follower.poll_every = timedelta(milliseconds=20)
    return training


def wanted(steps: int, **bounds: Any) -> Wanted:
    return Wanted(
        strategy="sagemaker",
        base=fake_base(step_s=0.01),
        recipe=Recipe(max_steps=steps),
        bounds=Bounds(**{"budget": Money.usd(20), **bounds}),
    )


def steps_of(stores: Stores, run: Run) -> list[int]:
    events = [event for segment in stores.runs.segments(run.id) for event in stores.runs.events(segment.key)]
    return [int(event["step"]) for event in events if event["kind"] == "step"]


def _begin(config: Config, run: Run) -> None:
    with open_training(config, parts_of(config.home)) as training:
        training.runs.begin(run)


def _in_a_process(what: Callable[[Config, Run], None], config: Config, run: Run) -> str:
    process = forked.Process(target=what, args=(config, run))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{run.id} could not be begun")
    return run.id


def _names(root: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
