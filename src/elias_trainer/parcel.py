"""What a segment travels as, to and from a machine that is not ours: plain files beside a list of their digests.

    parcel/                             outbox/
      parcel.json                         checkpoint-00000012.pack[.age]
      job.json                            adapter.pack[.age]
      corpus.jsonl[.age]                  result.json
      checkpoint.pack[.age]                events.jsonl
      trainer.bin                         outbox.json

With a recipient the corpus and the checkpoint are sealed with age (https://age-encryption.org/v1) for a key made for
this segment, and what comes back is sealed for the node. The job and the losses stay readable. Standard library, and
pyrage where something is sealed. `trainer.bin` is the trainer's archive: as with `.pack`, by their real names
some places would unpack them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from elias_trainer.contract import (
    CheckpointRef,
    Digest,
    canonical_json,
    digest_bytes,
    digest_file,
    sync_folder,
    write_whole,
)
from elias_trainer.folders import whole_folder

PARCEL_SCHEMA = "elias.parcel/1"
PARCEL_FILE = "parcel.json"
OUTBOX_FILE = "outbox.json"
TRAINER_FILE = "trainer.bin"
NOTE_PREFIX = "ELIAS-CARRY "
"""Stands before a JSON line on stdout that is about the machine, not the training."""
SEALED = ".age"
PACKED = ".pack"
"""A folder as a tar archive, by a name under which no place unpacks it."""


class NotWhole(ValueError):
    """A file of a parcel or an outbox is missing or not what its list says; the text names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """`parcel.json`."""

    segment: str
    files: Mapping[str, Digest]
    """Name -> digest of the bytes as they travel, sealed ones as they are sealed."""
    sealed: bool
    outputs_to: str | None = None
    """The age recipient for what comes back; None leaves it readable."""
    accelerator: str | None = None
    """Part of the name that `nvidia-smi -L` is expected to print."""
    accelerator_count: int = 0
    schema: str = PARCEL_SCHEMA

    @property
    def digest(self) -> Digest:
        """What version notes carry, and what the job compares before it spends a GPU second."""
        return digest_bytes(self.to_json())

    def to_json(self) -> bytes:
        return canonical_json(dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Parcel:
        """Raises NotWhole when there is none."""
        try:
            raw = json.loads((folder / PARCEL_FILE).read_bytes())
            files = {name: Digest(digest) for name, digest in raw["files"].items()}
            return cls(**{**raw, "files": files})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotWhole(f"{folder / PARCEL_FILE}: {error}") from error


def check_parcel(folder: Path, expected: Digest | None) -> Parcel:
    """The parcel in `folder`, every byte compared with its digest. Raises NotWhole naming the file that differs."""
    parcel = Parcel.read(folder)
    if expected is not None and parcel.digest != expected:
        raise NotWhole(f"{folder / PARCEL_FILE} is {parcel.digest}, not the {expected} of this segment")
    for name, digest in parcel.files.items():
        path = folder / name
        if not path.is_file() or digest_file(path) != digest:
            raise NotWhole(f"{path} is not the {digest} that {PARCEL_FILE} names")
    return parcel


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbox:
    """`outbox.json`: what is whole so far; written after everything that it names."""

    checkpoints: tuple[CheckpointRef, ...]
    """Newest last; `path` is the file in the outbox, `digest` that of the unpacked folder."""
    files: Mapping[str, Digest]
    sealed: bool

    def write(self, folder: Path) -> None:
        self.write_to(folder / OUTBOX_FILE)

    def write_to(self, path: Path) -> None:
        write_whole(path, canonical_json(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Outbox:
        """An empty one where there is none yet. Raises NotWhole when it cannot be read."""
        if not (folder / OUTBOX_FILE).exists():
            return cls(checkpoints=(), files={}, sealed=False)
        return cls.read_from(folder / OUTBOX_FILE)

    @classmethod
    def read_from(cls, path: Path) -> Outbox:
        """Raises NotWhole when it cannot be read."""
        try:
            raw = json.loads(path.read_bytes())
            checkpoints = tuple(CheckpointRef(**{**c, "digest": Digest(c["digest"])}) for c in raw["checkpoints"])
            files = {name: Digest(digest) for name, digest in raw["files"].items()}
            return cls(checkpoints=checkpoints, files=files, sealed=raw["sealed"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotWhole(f"{path}: {error}") from error


def pack(source: Path, target: Path, recipients: tuple[str, ...] = (), *, scratch: Path | None = None) -> Digest:
    """Write `source`, a file or a folder (as a tar), whole to `target`, sealed for recipients if any; its digest.

    What is not sealed yet lies in the folder `scratch` meanwhile, by default the target's own. Raises
    FileNotFoundError, and writes nothing, where the source was taken away while it was read.
    """
    part = target.with_name(f".{target.name}.part")
    plain = source
    try:
        if source.is_dir():
            plain = (scratch or target.parent) / f".{target.name}.tar"
            _tar(source, plain)
            source.stat()
        if recipients:
            _seal(plain, part, recipients)
        else:
            shutil.copyfile(plain, part)
    finally:
        if plain != source:
            plain.unlink(missing_ok=True)
    digest = digest_file(part)
    part.replace(target)
    sync_folder(target.parent)
    return digest


def unpack(source: Path, target: Path, identity: str | None = None) -> None:
    """The inverse of `pack`: a file, or a folder from a tar, whole or not at all. Raises NotWhole."""
    plain = source
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.name.endswith(SEALED):
            plain = target.with_name(f".{target.name}.opened")
            _open(source, plain, identity)
        if source.name.removesuffix(SEALED).endswith(PACKED):
            _untar(plain, target)
        else:
            scratch = target.with_name(f".{target.name}.part")
            shutil.copyfile(plain, scratch)
            scratch.replace(target)
            sync_folder(target.parent)
    finally:
        if plain != source:
            plain.unlink(missing_ok=True)


def _tar(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                info.size = path.stat().st_size
                with path.open("rb") as stream:
                    archive.addfile(info, stream)


def _untar(source: Path, target: Path) -> None:
    """Files alone, as `_tar` wrote them: tarfile's own filter is not in every Python 3.11 (3.11.2, Debian 12's)."""
    try:
        with whole_folder(target) as scratch, tarfile.open(source) as archive:
            for member in archive:
                name, stream = PurePosixPath(member.name), archive.extractfile(member) if member.isfile() else None
                if stream is None or name.is_absolute() or ".." in name.parts:
                    raise NotWhole(f"{source.name} holds {member.name!r}, which is no file of a folder")
                there = scratch / name
                there.parent.mkdir(parents=True, exist_ok=True)
                with stream, there.open("wb") as plain:
                    shutil.copyfileobj(stream, plain)
    except (tarfile.TarError, EOFError) as error:
        raise NotWhole(f"{source.name} is not a whole archive: {error}") from error


def _seal(source: Path, target: Path, recipients: tuple[str, ...]) -> None:
    import pyrage

    keys = [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients]
    with source.open("rb") as plain, target.open("wb") as sealed:
        pyrage.encrypt_io(plain, sealed, keys)


def _open(source: Path, target: Path, identity: str | None) -> None:
    import pyrage

    if identity is None:
        raise NotWhole(f"{source.name} is sealed and no key is at hand")
    try:
        with source.open("rb") as sealed, target.open("wb") as plain:
            pyrage.decrypt_io(sealed, plain, [pyrage.x25519.Identity.from_str(identity)])
    except (pyrage.DecryptError, pyrage.IdentityError, OSError) as error:
        target.unlink(missing_ok=True)
        if getattr(error, "errno", None):
            raise  # of the disk; tampering found in mid-stream is an OSError too, without a number
        raise NotWhole(f"{source.name} cannot be opened with this key, or was changed: {error}") from error
