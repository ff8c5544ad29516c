"""The files of a run on this node: what each segment takes along and what it brought home.

runs/<run>/segments/0001/{in,out}/
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from elias.domain.run import Checkpoint, Segment
from elias.errors import DigestMismatch, DiskFull, StoreError, VerificationError
from elias_trainer.contract import (
    Digest,
    EventKind,
    Input,
    Job,
    Result,
    digest_file,
    file_digests,
    from_json,
    sync_folder,
    to_json,
    tree_digest,
    write_whole,
)

CORPUS, TRAINER = "corpus.jsonl", "trainer.pyz"


class RunFolder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def inputs(self, number: int) -> Path:
        return self.root / "segments" / f"{number:04d}" / "in"

    def outputs(self, number: int) -> Path:
        return self.root / "segments" / f"{number:04d}" / "out"

    def trainer(self) -> Path | None:
        """The archive that the run's first segment took: all its segments run the same program.

        Raises DigestMismatch when it has changed since.
        """
        path = self.inputs(1) / TRAINER
        if not (path.exists() and (self.inputs(1) / "job.json").exists()):
            return None
        written = self.job(1).trainer
        if written is not None and digest_file(path) != written:
            raise DigestMismatch(
                f"{path} is not the program that the run began with: its bytes have changed",
                fix="put that file back from a backup, or start the training again: elias train",
                kept=_EARLIER,
            )
        return path

    def archived(self, archive: Callable[[Path], object]) -> Path:
        """Made here, in the run's own folder, since two runs may be at this at once."""
        path = self.root / TRAINER
        archive(path)
        return path

    def prepare(self, number: int, job: Job, sources: Mapping[str, Path]) -> None:
        """Lay out `in/`, job.json last; safe to repeat. Raises OSError: see `disk_errors`."""
        folder = self.inputs(number)
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            _place(source, folder / name)
        if job.lease:
            (folder / job.lease.path).touch()
        write_whole(folder / "job.json", to_json(job))

    def job(self, number: int) -> Job:
        """Raises StoreError when job.json is not there or not one."""
        path = self.inputs(number) / "job.json"
        try:
            return from_json(Job, path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path} cannot be read: {error}",
                fix="resume the run on the node and with the ELIAS_HOME that it was started with",
            ) from error

    def result(self, number: int) -> Result | None:
        """None when the segment left none. Raises DigestMismatch when what it left is not one."""
        path = self.outputs(number) / "result.json"
        if not path.exists():
            return None
        try:
            return from_json(Result, path.read_bytes())
        except ValueError as error:
            raise DigestMismatch(f"{path} is not a result: {error}", fix=_RESUME) from error

    def events(self, number: int) -> Iterator[Mapping[str, Any]]:
        """Those that came home; a torn line is left out."""
        path = self.outputs(number) / "events.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def verified_checkpoint(self, number: int) -> Checkpoint | None:
        """The newest that came home. Raises DigestMismatch naming it when its bytes are not what the trainer wrote."""
        out = self.outputs(number)
        newest = max((out / "checkpoint").glob("step-*"), default=None)
        if newest is None:
            return None
        path = newest.relative_to(out).as_posix()
        found, written = _tree_digest(newest), self._written_digests(number).get(path)
        if written is not None and found != written:
            raise DigestMismatch(
                f"{newest} is not what the trainer wrote: its bytes have changed", fix=_RESUME, kept=_EARLIER
            )
        return Checkpoint(
            step=int(newest.name.removeprefix("step-")), digest=found, path=newest.relative_to(self.root).as_posix()
        )

    def verify_adapter(self, number: int, result: Result) -> None:
        """Raises DigestMismatch naming the first file that is changed, missing or extra."""
        self.verify_adapter_in(self.outputs(number), result)

    def is_whole(self, segment: Segment) -> bool:
        """An adapter that was damaged since it came home is made again, from the newest checkpoint."""
        try:
            self.verify_adapter(segment.number, belonging(self.result(segment.number), segment, self))
        except (VerificationError, StoreError):
            return False
        return True

    @staticmethod
    def verify_adapter_in(out: Path, result: Result) -> None:
        """The same for any folder that has the shape of `out/`."""
        wanted = {name: digest for name, digest in result.outputs.items() if name.startswith("adapter/")}
        found = {f"adapter/{name}": digest for name, digest in _file_digests(out / "adapter").items()}
        if not wanted:
            raise DigestMismatch(f"{out} names no adapter in its result", fix=_RESUME, kept=_EARLIER)
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise DigestMismatch(
                    f"{out / name} is not what the trainer wrote: changed, missing or extra",
                    fix=_RESUME,
                    kept=_EARLIER,
                )

    def checkpoint_folder(self, checkpoint: Checkpoint) -> Path:
        """Verified again, for a disk forgets too. Raises DigestMismatch, or StoreError when it is not on this node."""
        folder = self.root / checkpoint.path
        if not folder.is_dir():
            raise StoreError(
                f"the checkpoint {folder} is not here",
                fix="resume the run on the node and with the ELIAS_HOME that it was started with",
            )
        if _tree_digest(folder) != checkpoint.digest:
            changed = _changed_file(folder)
            raise DigestMismatch(f"{changed} is not what came home: its bytes have changed", fix=_RESTORE)
        return folder

    def drop_old_checkpoints(self, segments: Sequence[Segment], keep: Checkpoint | None) -> None:
        """What a finished run needs no more: the newest one stays, and so does every job, result and event."""
        for segment in segments:
            shutil.rmtree(self.inputs(segment.number) / "checkpoint", ignore_errors=True)
            folder = self.outputs(segment.number) / "checkpoint"
            if keep is None or folder not in (self.root / keep.path).parents:
                shutil.rmtree(folder, ignore_errors=True)

    def _written_digests(self, number: int) -> dict[str, str]:
        """Checkpoint path -> the digest that the trainer announced."""
        events = (e for e in self.events(number) if e.get("kind") == EventKind.CHECKPOINT)
        return {str(event["path"]): str(event["digest"]) for event in events}


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the operating system refuses, as DiskFull or StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room left to write {folder}", fix="free some space, then: elias run resume", kept=_EARLIER
            ) from error
        raise StoreError(f"{folder}: {error}", fix="elias doctor", kept=_EARLIER) from error


_RESUME = "elias run resume goes on from the newest checkpoint that is whole"
_RESTORE = "restore that checkpoint from a backup, or start the training again: elias train"
_EARLIER = "every earlier checkpoint of the run"


def with_base_digest(job: Job, digest: Digest | None) -> Job:
    """The base that an earlier segment found is the only one that a later one may find."""
    if job.base.digest or digest is None:
        return job
    return replace(job, base=replace(job.base, digest=digest))


def file_input(name: str, path: Path) -> Input:
    return Input(path=name, digest=digest_file(path))


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    if source.is_dir():
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(source, scratch, copy_function=_link_or_copy)
        shutil.rmtree(target, ignore_errors=True)
    else:
        shutil.copyfile(source, scratch)
    scratch.replace(target)
    sync_folder(target.parent)


def _link_or_copy(source: str, target: str) -> None:
    """A checkpoint is large and never written again: on one disk two names for it are enough."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _changed_file(folder: Path) -> Path:
    """Of a checkpoint whose digest is wrong: the file that its manifest does not know so, else the manifest itself."""
    manifest = folder / "manifest.json"
    try:
        said = dict(json.loads(manifest.read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return manifest
    found = {name: digest for name, digest in _file_digests(folder).items() if name != manifest.name}
    return next((folder / name for name in sorted(said.keys() | found) if said.get(name) != found.get(name)), manifest)


def _tree_digest(folder: Path) -> Digest:
    try:
        return tree_digest(folder)
    except ValueError as error:
        raise DigestMismatch(str(error), fix=_RESUME, kept=_EARLIER) from error


def _file_digests(folder: Path) -> dict[str, Digest]:
    try:
        return file_digests(folder)
    except ValueError as error:
        raise DigestMismatch(str(error), fix=_RESUME, kept=_EARLIER) from error


def belonging(result: Result | None, segment: Segment, folder: RunFolder) -> Result:
    """Of the job that the segment took along: one that was adopted did another one's job than its number says."""
    if result is None or (result.run, result.segment) != (segment.run, folder.job(segment.number).segment):
        raise VerificationError(
            f"result.json of {segment.key} is missing or of another segment",
            fix=f"elias run resume {segment.run} goes on from its newest checkpoint",
        )
    return result
