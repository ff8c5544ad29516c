"""A package that is installed here as a wheel again, for a machine that lacks it and may fetch nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from elias_trainer.contract import write_whole

NOT_OF_THE_WHEEL = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
"""Written by whoever installed it."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Of a zip archive; the same for each file, so that the wheel is the same each time."""


def runs_on_linux(name: str) -> bool:
    """Whether the installed package would run on any Linux on x86_64 with its Python or a newer one."""
    try:
        tags = _tags(distribution(name))
    except PackageNotFoundError:
        return False
    return any(
        abi in ("abi3", "none") and (platform == "any" or ("manylinux" in platform and platform.endswith("x86_64")))
        for _, abi, platform in (tag.split("-") for tag in tags)
    )


def own_wheel(name: str, folder: Path) -> Path | None:
    """The wheel in `folder`, made of the installed files; None where they do not run there, or are not as installed."""
    if not runs_on_linux(name):
        return None
    package = distribution(name)
    files = {str(file): file.read_binary() for file in _files(package) if _is_whole(file)}
    if len(files) != sum(1 for _ in _files(package)):
        return None
    python, abi, _ = _tags(package)[0].split("-")
    platforms = ".".join(tag.split("-")[2] for tag in _tags(package))
    wheel = folder / f"{package.name}-{package.version}-{python}-{abi}-{platforms}.whl"
    if not wheel.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(wheel, _zipped(files, f"{package.name}-{package.version}.dist-info/RECORD"))
    return wheel


def _tags(package: Distribution) -> list[str]:
    """By https://packaging.python.org/en/latest/specifications/binary-distribution-format/."""
    return message_from_string(package.read_text("WHEEL") or "").get_all("Tag", [])


def _files(package: Distribution) -> Iterator[PackagePath]:
    for file in package.files or ():
        if file.name not in NOT_OF_THE_WHEEL and file.suffix != ".pyc":
            yield file


def _is_whole(file: PackagePath) -> bool:
    return file.hash is not None and file.hash.value == _digest(file.read_binary())


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes], record: str) -> bytes:
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*sorted(files.items()), (record, "\n".join([*lines, f"{record},,\n"]).encode())]:
            entry = zipfile.ZipInfo(name, date_time=EARLIEST)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return held.getvalue()
