"""An emulated Kaggle: the calls that the official client makes, on loopback, with state on disk and faults on demand.

Pushed kernels really run, in a private `/kaggle` tree. Not emulated: the GPU, blocking the internet, docker images,
limits on memory and disk. Secrets are what `Disk.set_secrets` says. Start it with
`python -m elias.testing.kaggle_emulator --root DIR --port N`.
"""

from elias.testing.kaggle_emulator.app import KaggleEmulator, build_app
from elias.testing.kaggle_emulator.disk import Disk
from elias.testing.kaggle_emulator.faults import Fault, FaultKind

__all__ = ["Disk", "Fault", "FaultKind", "KaggleEmulator", "build_app"]
