"""Bundles that leave this machine: packed as a parcel, sealed where the label asks for it, opened when they return."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elias.domain.label import Label
from elias.errors import ConfigError, DigestMismatch, MissingPackage, VerificationError
from elias.ports.backend import Bundle
from elias_trainer.contract import Digest, canonical_json, digest_bytes, digest_file, tree_digest, write_whole
from elias_trainer.parcel import PARCEL_FILE, SEALED, TRAINER_FILE, NotWhole, Outbox, Parcel, pack, unpack

SEALED_KEY_FILE = "segment.key.sealed"
WHEEL_ENDING = ".bin"
"""A wheel is a zip archive, which by its own name some places would unpack."""

_AGAIN = "it is tried again by itself"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """What the place is expected to be, and who may read what goes there and comes back."""

    accelerator: str | None = None
    """Part of the name that `nvidia-smi -L` should print there."""
    accelerator_count: int = 0
    wheels: Sequence[Path] = ()
    node_key: str | None = None
    """The node's age identity: what comes back is sealed for it."""
    secret_recipient: str | None = None
    """Whom the segment's key is sealed for, where it travels in the parcel."""


def make_parcel(bundle: Bundle, folder: Path, destination: Destination) -> Parcel:
    """The parcel of a verified bundle in `folder`; made once, found again later.

    Private data is sealed: corpus and checkpoint for a key made for this segment, which is kept beside the folder as
    `segment.key`, outputs for the node. Raises MissingPackage where that needs pyrage, ConfigError without a node key.
    """
    if (folder / PARCEL_FILE).exists():
        return Parcel.read(folder)
    sealed = bundle.label is Label.PRIVATE
    if sealed and destination.node_key is None:
        raise ConfigError("private data may leave only when what comes back is sealed for this node", fix="elias init")
    recipients = (_segment_recipient(folder.with_name("segment.key")),) if sealed else ()
    ending = SEALED if sealed else ""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"job.json": bundle.folder / "job.json", TRAINER_FILE: bundle.folder / "trainer.pyz"}
    sources |= {f"{wheel.name}{WHEEL_ENDING}": wheel for wheel in destination.wheels}
    files = {name: pack(source, folder / name) for name, source in sources.items()}
    corpus, job = f"{Path(bundle.job.corpus.path).name}{ending}", bundle.job
    if sealed:
        files[corpus] = pack(bundle.folder / job.corpus.path, folder / corpus, recipients, scratch=folder.parent)
    else:
        files[corpus] = _as_it_is(bundle.folder / job.corpus.path, folder / corpus, job.corpus.digest)
    if job.checkpoint:
        name, source = f"checkpoint.pack{ending}", bundle.folder / job.checkpoint.path
        files[name] = pack(source, folder / name, recipients, scratch=folder.parent)
    if sealed and destination.secret_recipient:
        key = folder.with_name("segment.key")
        files[SEALED_KEY_FILE] = pack(key, folder / SEALED_KEY_FILE, (destination.secret_recipient,))
    parcel = Parcel(
        segment=bundle.job.segment,
        files=files,
        sealed=sealed,
        outputs_to=recipient_of(destination.node_key) if sealed and destination.node_key else None,
        accelerator=destination.accelerator,
        accelerator_count=destination.accelerator_count,
    )
    write_whole(folder / PARCEL_FILE, parcel.to_json())
    return parcel


def open_outbox(outbox: Path, out: Path, node_key: str | None) -> None:
    """Bring what is whole in a fetched outbox into the shape of a trainer's `out/`.

    Raises DigestMismatch naming a file that is not what the outbox says, after all that is whole was brought; and
    VerificationError when a file that is whole does not open.
    """
    try:
        box = Outbox.read(outbox)
    except NotWhole as error:
        raise _not_whole(str(error)) from error
    broken = [name for name, digest in box.files.items() if not _is_whole(outbox, name, digest)]
    for checkpoint in box.checkpoints:
        if checkpoint.path in box.files and checkpoint.path not in broken:
            target = out / "checkpoint" / f"step-{checkpoint.step:08d}"
            _unpack(outbox / checkpoint.path, target, node_key)
            _same(target, checkpoint.digest)
    for name in box.files:
        if name.removesuffix(SEALED) == "adapter.pack" and name not in broken:
            _unpack(outbox / name, out / "adapter", node_key)
    for name in ("events.jsonl", "result.json"):
        if (outbox / name).is_file() and name not in broken:
            write_whole(out / name, (outbox / name).read_bytes())
    if broken:
        raise _not_whole(f"{broken[0]} is not the {box.files[broken[0]]} that the outbox names")


def open_as_it_comes(folder: Path, box: Outbox, node_key: str | None) -> None:
    """`folder/outbox` into `folder/out`, once for each state `box` of it; what is not named any more is dropped."""
    mark = digest_bytes(canonical_json([sorted(box.files.items())]))
    opened = folder / "opened"
    if opened.exists() and opened.read_text(encoding="utf-8") == mark:
        return
    (folder / "outbox").mkdir(exist_ok=True)
    box.write(folder / "outbox")
    open_outbox(folder / "outbox", folder / "out", node_key)
    keep = {f"step-{ref.step:08d}" for ref in box.checkpoints}
    for old in (folder / "out" / "checkpoint").glob("step-*"):
        if keep and old.name not in keep:
            shutil.rmtree(old)
    for path in (folder / "outbox").glob("checkpoint-*"):
        if path.name not in box.files:
            path.unlink()
    write_whole(opened, mark.encode())


def read_box(path: Path, text: str) -> Outbox:
    """An outbox that another machine wrote, kept at `path`. Its names become paths here: only plain ones are taken."""
    write_whole(path, text.encode())
    try:
        box = Outbox.read_from(path)
    except NotWhole as error:
        raise DigestMismatch(f"the outbox cannot be read: {error}", fix=_AGAIN) from error
    for name in (*box.files, *(ref.path for ref in box.checkpoints)):
        if not _NAME.fullmatch(name):
            raise DigestMismatch(f"the outbox names {name!r}, which is no file of it", fix=_AGAIN)
    return box


def _as_it_is(source: Path, target: Path, digest: Digest) -> Digest:
    """Copied, and not hashed once more: the bundle was just verified, and the copy is where it is opened."""
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.replace(target)
    return digest


def _is_whole(outbox: Path, name: str, digest: Digest) -> bool:
    """The names come from outside: only a plain file of the outbox itself is one."""
    path = outbox / name
    return Path(name).name == name and path.is_file() and not path.is_symlink() and digest_file(path) == digest


def _unpack(source: Path, target: Path, node_key: str | None) -> None:
    try:
        unpack(source, target, node_key)
    except NotWhole as error:
        raise VerificationError(
            f"what came back cannot be opened: {error}", fix=_RESUME, kept="every checkpoint that came home before"
        ) from error


def _not_whole(what: str) -> DigestMismatch:
    return DigestMismatch(
        f"what came back is not whole: {what}", fix=_RESUME, kept="every checkpoint that came home before"
    )


_RESUME = "elias run resume goes on from the checkpoint before"


def recipient_of(identity: str) -> str:
    """The public half of an age identity."""
    import pyrage

    return str(pyrage.x25519.Identity.from_str(identity).to_public())


def new_identity(path: Path) -> str:
    """A fresh age identity, kept in `path` (0600)."""
    try:
        import pyrage
    except ModuleNotFoundError as error:
        raise MissingPackage("sealing private data needs pyrage", fix="pip install 'elias-node[node]'") from error
    identity = str(pyrage.x25519.Identity.generate())
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(identity + "\n")
    scratch.replace(path)
    return identity


def _segment_recipient(path: Path) -> str:
    identity = path.read_text(encoding="utf-8").strip() if path.exists() else new_identity(path)
    return recipient_of(identity)


def _same(folder: Path, digest: Digest) -> None:
    found = tree_digest(folder)
    if found != digest:
        shutil.rmtree(folder)
        raise VerificationError(f"{folder.name} is {found}, not the {digest} that the outbox names", fix=_RESUME)
