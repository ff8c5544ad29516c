"""One container of a job: a private `/opt/ml`, the entry point run for real, its lines kept for the log."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from elias.testing.emulated import Json, write
from elias.testing.sagemaker_emulator.clients import ROLE_KEY

# A new root, in which everything is as outside but /opt/ml; works for root and, in a user namespace, for anyone.
ENTER = """
root=$1; tree=$2; shift 2
mount -t tmpfs none "$root"
share() {
  if [ -L "$1" ]; then cp -P "$1" "$root$1"
  elif [ -d "$1" ]; then mkdir "$root$1"; mount --rbind "$1" "$root$1"
  elif [ -f "$1" ]; then touch "$root$1"; mount --bind "$1" "$root$1"; fi
}
for entry in /*; do [ "$entry" = /opt ] || share "$entry"; done
mkdir "$root/opt"
for entry in /opt/*; do [ "$entry" = /opt/ml ] || share "$entry"; done
mkdir "$root/opt/ml"; mount --rbind "$tree" "$root/opt/ml"
exec chroot "$root" "$@"
"""
# Process 1 of the stock images is a shell that neither runs its child in its place nor passes SIGTERM on to it.
STOCK_SHELL = 'trap : TERM; "$@" & while :; do wait $!; code=$?; kill -0 $! 2>/dev/null || exit $code; done'
LAST_LINES_WITHIN_S = 60.0
"""Read at once, unless something that left the container's group holds its output open."""
FOLDERS = ("input/config", "input/data", "model", "output/data", "checkpoints", "code")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a container finds itself."""

    tree: Path
    url: str
    """The emulator's, for a container that may use the network."""
    region: str
    is_private: bool
    """A namespace with its own /opt/ml; else the toolkit's SAGEMAKER_BASE_DIR, and paths are rewritten."""


class Container:
    """Runs from when it is made."""

    def __init__(self, request: Json, arn: str, place: Place) -> None:
        for folder in FOLDERS:
            (place.tree / folder).mkdir(parents=True, exist_ok=True)
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            _command(request, place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=_environment(request, arn, place),
        )
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def exit_code(self) -> int | None:
        """None while it runs; 128 and the signal's number when it was killed."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM to the entry point alone, as a stopping job's container gets it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # nothing of it is left
            return
        finally:
            self._process.wait()

    def close(self) -> None:
        """After its end: nothing of it runs on, and all it said can be taken."""
        self.kill()
        self._pump.join(LAST_LINES_WITHIN_S)

    def take_lines(self) -> list[str]:
        """Those said since the last call."""
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                with self._lock:
                    self._lines.append(line.decode("utf-8", errors="replace").rstrip("\r\n"))


@functools.cache
def can_be_private() -> bool:
    """Whether this machine lets us make a namespace."""
    try:
        done = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def write_config(tree: Path, request: Json) -> None:
    """What a container finds in /opt/ml/input/config."""
    config = tree / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    instance = request["ResourceConfig"]["InstanceType"]
    group = {"instance_group_name": "homogeneousCluster", "instance_type": instance, "hosts": ["algo-1"]}
    channels = {
        channel["ChannelName"]: {
            "TrainingInputMode": channel.get("InputMode") or request["AlgorithmSpecification"]["TrainingInputMode"],
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        | ({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {})
        for channel in request.get("InputDataConfig", [])
    }
    write(config / "hyperparameters.json", request.get("HyperParameters") or {})
    write(config / "inputdataconfig.json", channels)
    write(
        config / "resourceconfig.json",
        {
            "current_host": "algo-1",
            "current_instance_type": instance,
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [group],
            "network_interface_name": "eth0",
        },
    )


def _command(request: Json, place: Place) -> list[str]:
    algorithm = request["AlgorithmSpecification"]
    arguments = list(algorithm.get("ContainerArguments") or [])
    if algorithm.get("ContainerEntrypoint"):
        words = [*algorithm["ContainerEntrypoint"], *arguments]
    else:
        toolkit = [sys.executable, "-m", "sagemaker_training.cli.train"]
        words = ["sh", "-c", STOCK_SHELL, "train", *toolkit, *arguments]
    if not place.is_private:
        return [word.replace("/opt/ml", str(place.tree)) for word in words]
    root = place.tree.with_name("root")
    root.mkdir(exist_ok=True)
    flags = "-Urmn" if request.get("EnableNetworkIsolation") else "-Urm"
    return ["unshare", flags, "sh", "-ec", ENTER, "enter", str(root), str(place.tree), *words]


def _environment(request: Json, arn: str, place: Place) -> dict[str, str]:
    """Made from nothing: a container does not see this machine's settings."""
    made = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "TRAINING_JOB_NAME": request["TrainingJobName"],
        "TRAINING_JOB_ARN": arn,
        "AWS_REGION": place.region,
        "SM_STUDIO_LOCAL_MODE": "true",  # else the toolkit waits for a name server to know algo-1
        "AWS_DEFAULT_REGION": place.region,
    }
    if not place.is_private:
        made["SAGEMAKER_BASE_DIR"] = str(place.tree)
    if not request.get("EnableNetworkIsolation"):
        made |= {
            "AWS_ACCESS_KEY_ID": ROLE_KEY,
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_ENDPOINT_URL": place.url,
            "S3_ENDPOINT_URL": place.url,
        }
    asked = request.get("Environment") or {}
    if not place.is_private:
        asked = {key: value.replace("/opt/ml", str(place.tree)) for key, value in asked.items()}
    return made | asked
