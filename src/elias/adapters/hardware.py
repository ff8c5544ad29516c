"""What this machine is made of: cores, memory, disk, and NVIDIA cards where their driver answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pynvml

from elias.domain.tier import Gpu, Machine


def probe(home: Path) -> Machine:
    """Read now; `home` names the disk that counts, and need not exist yet."""
    disk = shutil.disk_usage(_existing(home))
    return Machine(
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        gpus=gpus(),
    )


def gpus() -> tuple[Gpu, ...]:
    """Every NVIDIA card; none where there is no driver. Other makers' cards are not seen."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(name=_text(pynvml.nvmlDeviceGetName(h)), memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(h).total))
            for h in handles
        )
    finally:
        pynvml.nvmlShutdown()


def on_battery() -> bool:
    """Whether it runs on a battery now; False where there is none, or nobody can say."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return battery is not None and battery.power_plugged is False


def is_offline() -> bool:
    """Whether no network interface but the loopback is up."""
    return not any(state.isup and name != "lo" for name, state in psutil.net_if_stats().items())


def threads_available() -> int:
    """CPU threads that this process may use: fewer than the machine has inside a container or under taskset."""
    process = psutil.Process()
    allowed = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count()
    return allowed or 1


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
