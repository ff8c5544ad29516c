"""An emulated Kaggle: the calls that the official client makes, on loopback, with state on disk and faults on demand.

Pushed kernels really run, in a private `/kaggle` tree. Not emulated: the GPU, blocking the internet, docker images,
limits on memory and disk. Secrets are what `Disk.set_secrets` says. Start it with
`python -m elias.testing.kaggle_emulator --root DIR --port N`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elias.testing.kaggle_emulator.disk import Disk
from elias.testing.kaggle_emulator.faults import Fault, FaultKind

if TYPE_CHECKING:
    from elias.testing.kaggle_emulator.app import Beside, KaggleEmulator, build_app

__all__ = ["Beside", "Disk", "Fault", "FaultKind", "KaggleEmulator", "build_app"]


def __getattr__(name: str) -> Any:
    """The server is imported by whoever serves: a session's own process, of which there are many, does not."""
    if name in ("Beside", "KaggleEmulator", "build_app"):
        from elias.testing.kaggle_emulator import app

        return getattr(app, name)
    raise AttributeError(name)
