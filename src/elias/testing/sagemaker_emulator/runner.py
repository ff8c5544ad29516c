"""The life of each job, one thread a job: Starting, Downloading, Training, Uploading, and every way to end."""

from __future__ import annotations

import shutil
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from elias.testing.emulated import Json, read
from elias.testing.sagemaker_emulator.clients import Clients
from elias.testing.sagemaker_emulator.container import Container, Place, can_be_private, write_config
from elias.testing.sagemaker_emulator.disk import FINAL, Disk
from elias.testing.sagemaker_emulator.faults import FaultKind
from elias.testing.sagemaker_emulator.joblog import JobLog
from elias.testing.sagemaker_emulator.outcome import End, Outputs
from elias.testing.sagemaker_emulator.staging import Channel, CheckpointSync
from elias.testing.sagemaker_emulator.status import move, settle

POLL_S = 0.02
IDLE_S = 0.3
"""Between two looks of a job that never starts: there may be a hundred of them."""
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
EMULATOR_ENDED = End("Failed", "InternalServerError: emulated: the emulator was ended while the job ran")


class Runners:
    """The jobs that run in this process."""

    def __init__(self, disk: Disk, clients: Clients) -> None:
        self._disk = disk
        self._clients = clients
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, folder: Path, region: str) -> None:
        life = _Life(self._disk, self._clients, folder, region, self._closing)
        thread = threading.Thread(target=life.live, name=folder.name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Ends every job that still runs."""
        self._closing.set()
        for thread in self._threads:
            thread.join()


def recover(disk: Disk) -> None:
    """Jobs that an emulator left behind when it was killed cannot go on: what they read is gone with its memory."""
    for folder, record in disk.jobs():
        if record["TrainingJobStatus"] not in FINAL:
            _finish(disk, folder, EMULATOR_ENDED)


class _Life:
    def __init__(self, disk: Disk, clients: Clients, folder: Path, region: str, closing: threading.Event) -> None:
        self._disk = disk
        self._clients = clients
        self._folder = folder
        self._region = region
        self._closing = closing
        self._request: Json = read(folder / "request.json") or {}
        self._tree = folder / "opt-ml"
        self._began_s: float | None = None
        """When the present instance began to be billed."""

    def live(self) -> None:
        end = End("Failed", "InternalServerError: emulated: the job's thread failed")
        try:
            end = self._until_end()
        except Exception as error:  # noqa: BLE001 # whatever it is, a job must not look as if it still ran
            traceback.print_exc()
            end = End("Failed", f"InternalServerError: emulated: {error}")
        finally:
            self._stop_billing()
            shutil.rmtree(self._tree, ignore_errors=True)
            _finish(self._disk, self._folder, end)

    def _until_end(self) -> End:
        while True:
            end = self._start() or self._attempt()
            if end is not None:
                return end
            self._stop_billing()
            self._move("Interrupted")
            if end := self._wait(self._disk.settings.respawn_s):
                return end
            self._move("Starting")

    def _start(self) -> End | None:
        fault = self._fault()
        if fault == FaultKind.NEVER_STARTS:
            return self._wait(float("inf"))
        if fault == FaultKind.INSUFFICIENT_CAPACITY:
            return self._wait(self._fault_s()) or End("Failed", NO_CAPACITY)
        return self._wait(self._disk.settings.starting_s)

    def _attempt(self) -> End | None:
        """One instance's work; None when it was taken away."""
        self._move("Downloading")
        self._began_s = self._disk.time()
        self._disk.update(self._folder, lambda record: record.setdefault("TrainingStartTime", self._began_s))
        checkpoints = self._request.get("CheckpointConfig")
        local = self._tree / (checkpoints or {}).get("LocalPath", "/opt/ml/checkpoints").removeprefix("/opt/ml/")
        stage = self._clients.stage(self._region)
        try:
            shutil.rmtree(self._tree, ignore_errors=True)
            write_config(self._tree, self._request)
            for channel in map(Channel.of, self._request.get("InputDataConfig", [])):
                stage.download(stage.objects(channel), self._tree / "input" / "data" / channel.name)
            local.mkdir(parents=True, exist_ok=True)
            if checkpoints:
                stage.restore(checkpoints["S3Uri"], local)
        except (ClientError, OSError) as error:
            return End("Failed", f"ClientError: Data download failed: {error}")
        if end := self._wait(0):
            return end
        sync = CheckpointSync(stage, local, checkpoints["S3Uri"], None) if checkpoints else None
        return self._train(sync)

    def _train(self, sync: CheckpointSync | None) -> End | None:
        self._move("Training")
        record = read(self._folder / "job.json") or {}
        isolation = self._disk.settings.isolation
        is_private = can_be_private() if isolation == "auto" else isolation == "namespace"
        place = Place(tree=self._tree, url=self._clients.url, region=self._region, is_private=is_private)
        log = JobLog(self._clients.logs(self._region), self._request)
        container = Container(self._request, record["TrainingJobArn"], place)
        try:
            end = self._watch(_Watched(container, log, sync))
            if end is _INTERRUPTED:
                return None
        finally:
            container.close()
            self._drain(container, log)
        if sync:
            sync.push()
        return self._upload(end or End.of_exit(container.exit_code() or 0, self._tree))

    def _watch(self, watched: _Watched) -> End | None:
        """Until the container has ended; None when by itself."""
        container, began_s, synced_s = watched.container, self._disk.time(), self._disk.time()
        while container.exit_code() is None:
            now = self._disk.time()
            if watched.sync and now - synced_s >= self._disk.settings.sync_s:
                watched.sync.push()
                synced_s = self._disk.time()
            self._drain(container, watched.log)
            if end := self._due(now - began_s):
                if end is not EMULATOR_ENDED and end is not _INTERRUPTED:
                    self._let_go(container)
                return end
            self._closing.wait(POLL_S)
        return None

    def _let_go(self, container: Container) -> None:
        """SIGTERM, then the time of grace; whoever still runs is killed afterwards."""
        self._disk.update(self._folder, self._stopping)
        until_s = self._disk.time() + self._disk.settings.grace_s
        container.terminate()
        while container.exit_code() is None and self._disk.time() < until_s and not self._closing.is_set():
            self._closing.wait(POLL_S)

    def _due(self, training_s: float) -> End | None:
        """What ends the training now, from outside."""
        fault = self._fault()
        if fault in (FaultKind.SPOT_INTERRUPTION, FaultKind.STOPPED_FROM_CONSOLE) and training_s >= self._fault_s():
            what = "interrupt" if fault == FaultKind.SPOT_INTERRUPTION else "stop"
            self._disk.order(self._folder, what)
            self._disk.update(self._folder, lambda record: record.update(Fault=None))
        if self._disk.take_order(self._folder, "interrupt") and self._request.get("EnableManagedSpotTraining"):
            return _INTERRUPTED
        if end := self._ordered():
            return end
        record = read(self._folder / "job.json") or {}
        spent_s = record["TrainedSeconds"] + self._disk.time() - (self._began_s or 0.0)
        if spent_s >= record["StoppingCondition"]["MaxRuntimeInSeconds"]:
            return End("MaxRuntimeExceeded")
        return None

    def _ordered(self) -> End | None:
        """Stopped, waited too long, or the emulator ends."""
        if self._closing.is_set():
            return EMULATOR_ENDED
        if self._disk.take_order(self._folder, "stop"):
            return End("Stopped")
        record = read(self._folder / "job.json") or {}
        longest_s = record["StoppingCondition"].get("MaxWaitTimeInSeconds")
        if longest_s is not None and self._disk.time() - record["CreationTime"] >= longest_s:
            return End("MaxWaitTimeExceeded")
        return None

    def _wait(self, seconds: float) -> End | None:
        until_s = self._disk.time() + seconds
        while True:
            if end := self._ordered():
                return end
            if self._disk.time() >= until_s:
                return None
            self._closing.wait(POLL_S if seconds < float("inf") else IDLE_S)

    def _upload(self, end: End) -> End:
        if end is EMULATOR_ENDED:
            return end
        self._move("Uploading")
        outputs = Outputs(self._request, self._tree, is_corrupted=self._fault() == FaultKind.CORRUPTED_MODEL)
        try:
            artifacts = outputs.upload(self._clients.stage(self._region), is_failed=end.secondary == "Failed")
        except (ClientError, BotoCoreError, OSError) as error:
            return End("Failed", f"ClientError: Artifact upload failed: {error}")
        if artifacts:
            self._disk.update(
                self._folder, lambda record: record.update(ModelArtifacts={"S3ModelArtifacts": artifacts})
            )
        return end

    def _drain(self, container: Container, log: JobLog) -> None:
        found = log.put(container.take_lines())
        if found:
            now = self._disk.time()
            seen = {name: [value, now] for name, value in found.items()}
            self._disk.update(self._folder, lambda record: record["Metrics"].update(seen))

    def _stop_billing(self) -> None:
        if self._began_s is not None:
            spent_s = self._disk.time() - self._began_s
            self._began_s = None

            def add(record: Json) -> None:
                record["TrainedSeconds"] += spent_s

            self._disk.update(self._folder, add)

    def _stopping(self, record: Json) -> None:
        if record["TrainingJobStatus"] != "Stopping":
            move(record, "Stopping", self._disk.time())

    def _move(self, secondary: str) -> None:
        self._disk.update(self._folder, lambda record: move(record, secondary, self._disk.time()))

    def _fault(self) -> str | None:
        fault = (read(self._folder / "job.json") or {}).get("Fault")
        return fault["kind"] if fault else None

    def _fault_s(self) -> float:
        return float((read(self._folder / "job.json") or {})["Fault"]["seconds"])


@dataclass(frozen=True, slots=True)
class _Watched:
    container: Container
    log: JobLog
    sync: CheckpointSync | None


_INTERRUPTED = End("Interrupted")


def _finish(disk: Disk, folder: Path, end: End) -> None:
    def change(record: Json) -> None:
        now = disk.time()
        if end.reason:
            record["FailureReason"] = end.reason[:1024]
        settle(record, now, disk.settings.spot_discount)
        move(record, end.secondary, now)

    disk.update(folder, change)
