"""What a job left in S3, brought home: its newest whole checkpoint, events, result, and the finished adapter."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elias.adapters.backends.output import checkpoints
from elias.adapters.backends.parcels import open_outbox
from elias.adapters.backends.sagemaker.bucket import Bucket, Thing
from elias.errors import DigestMismatch, DiskFull, NotFound, VerificationError
from elias_trainer.contract import CheckpointRef, Digest, digest_bytes, digest_file, write_whole
from elias_trainer.parcel import OUTBOX_FILE, NotWhole, Outbox

GB = 10**9
SMALL = 64 * 2**20
"""The most that events.jsonl or a list of digests may have."""
MODEL_FILE = "model.tar.gz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inbox:
    bucket: Bucket
    prefix: str
    """Of the job's checkpoints folder in S3, with a slash at its end."""
    folder: Path
    """On this machine, for what was fetched and not yet opened."""
    out: Path
    node_key: str | None
    largest: int
    """Bytes that may come home at once."""

    def bring(self) -> None:
        """Whatever is whole by now. Safe to repeat; what is home already is not fetched again.

        Raises BackendError, DiskFull, or a VerificationError for a whole file that does not open.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        box, ref = self._newest()
        files: dict[str, Digest] = dict(box.files) if box and ref else {}
        for name in ("events.jsonl", "result.json"):
            data = self.bucket.read(self.prefix + name, largest=SMALL)
            if data is not None:
                write_whole(self.folder / name, data)
        if (named := self._result_digest()) is not None:
            files["result.json"] = named
        elif (self.folder / "result.json").exists():
            (self.folder / "result.json").unlink()  # half of its outbox has not arrived
        sealed = box.sealed if box else False
        Outbox(checkpoints=(ref,) if ref else (), files=files, sealed=sealed).write(self.folder)
        open_outbox(self.folder, self.out, self.node_key)
        for old in checkpoints(self.out)[1:]:
            shutil.rmtree(old)
        if ref:
            (self.folder / ref.path).unlink(missing_ok=True)

    def bring_model(self, key: str, *, named_by_digest: bool = False) -> Digest:
        """The finished adapter out of model.tar.gz; the archive's digest, which its folder's name may have to be.

        Raises VerificationError when it is not whole, NotFound, BackendError, DiskFull.
        """
        archive = self.bucket.fetch(key, self.folder / MODEL_FILE, largest=self.largest)
        digest, opened = digest_file(archive), self.folder / "model"
        if named_by_digest and key.split("/")[-2] != digest.hex:
            raise _broken(f"its digest is {digest.hex}, not the {key.split('/')[-2]} of its name")
        shutil.rmtree(opened, ignore_errors=True)
        try:
            _untar(archive, opened, self.largest)
            box = Outbox.read(opened)
            if not any(name.startswith("adapter.pack") for name in box.files):
                raise _broken("it names no adapter")
            open_outbox(opened, self.out, self.node_key)
        except NotWhole as error:
            raise _broken(str(error)) from error
        finally:
            shutil.rmtree(opened, ignore_errors=True)
        archive.unlink()
        return digest

    def newest_step(self) -> int:
        """Of the newest checkpoint whose file has arrived; 0 for none. One listing, nothing is fetched."""
        there = {thing.key.removeprefix(self.prefix) for thing in self.bucket.under(self.prefix)}
        steps = [_step(name) for name in there if _is_beside(name) and any(_belongs(name, other) for other in there)]
        return max(steps, default=0)

    def tidy(self, keep: int = 2) -> None:
        """Delete what the job has left behind of older checkpoints: SageMaker copies to S3 and never deletes there."""
        names = [thing.key.removeprefix(self.prefix) for thing in self.bucket.under(self.prefix)]
        whole = sorted({_step(n) for n in names if _is_beside(n) and any(_belongs(n, other) for other in names)})
        for step in whole[:-keep]:
            for begin in ("checkpoint", ".checkpoint"):  # half-written ones are copied too
                self.bucket.delete_under(f"{self.prefix}{begin}-{step:08d}.")

    def _newest(self) -> tuple[Outbox | None, CheckpointRef | None]:
        """Fetched and compared with its digest; an older one where the newest has not arrived whole."""
        things = {thing.key.removeprefix(self.prefix): thing for thing in self.bucket.under(self.prefix)}
        for name in sorted(filter(_is_beside, things), reverse=True):
            box = self._beside(things[name])
            ref = box.checkpoints[0] if box and box.checkpoints else None
            if box is None or ref is None or not _belongs(name, ref.path) or ref.path not in box.files:
                continue
            if (self.out / "checkpoint" / f"step-{ref.step:08d}").is_dir():
                return Outbox(checkpoints=(), files={}, sealed=box.sealed), None  # home already
            try:
                digest = box.files[ref.path]
                self.bucket.fetch(self.prefix + ref.path, self.folder / ref.path, largest=self.largest, digest=digest)
            except (NotFound, DigestMismatch):
                continue  # the copy to S3 was cut off, or the next one is on its way
            return box, ref
        return None, None

    def _beside(self, thing: Thing) -> Outbox | None:
        data = self.bucket.read(thing.key)
        if data is None:
            return None
        path = self.folder / "beside.json"
        write_whole(path, data)
        try:
            return Outbox.read_from(path)
        except NotWhole:
            return None

    def _result_digest(self) -> Digest | None:
        """As the job's outbox.json names it, where that has arrived and agrees."""
        if not (self.folder / "result.json").exists():
            return None
        data = self.bucket.read(self.prefix + OUTBOX_FILE, largest=SMALL)
        write_whole(self.folder / "theirs" / OUTBOX_FILE, data or b"{}")
        try:
            named = Outbox.read(self.folder / "theirs").files.get("result.json")
        except NotWhole:
            return None
        return named if named == digest_bytes((self.folder / "result.json").read_bytes()) else None


def _untar(archive: Path, into: Path, largest: int) -> None:
    """Plain files at the archive's root, and no more bytes than `largest`, whatever the archive claims of itself."""
    into.mkdir(parents=True)
    left = min(largest, shutil.disk_usage(into).free)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is None or Path(member.name).name != member.name.removeprefix("./"):
                    continue
                left -= member.size
                if left < 0:
                    raise DiskFull(f"{archive.name} unpacks to more than there is room for", fix="free some space")
                with (into / Path(member.name).name).open("wb") as target:
                    shutil.copyfileobj(stream, target, 2**20)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise _broken(f"it cannot be unpacked ({error})") from error


def _broken(why: str) -> VerificationError:
    return VerificationError(
        f"{MODEL_FILE} is not whole: {why}",
        fix="elias run resume goes on from the newest checkpoint",
        kept="every checkpoint that came home",
    )


def _is_beside(name: str) -> bool:
    return name.startswith("checkpoint-") and name.endswith(".json") and name[11:-5].isdigit()


def _belongs(beside: str, name: str) -> bool:
    """Whether `name` is the file of the checkpoint that `beside` describes: a plain name, whoever wrote it."""
    return name.startswith(beside.removesuffix("json") + "pack") and "/" not in name


def _step(name: str) -> int:
    return int(name[11:-5])


def steps_home(out: Path) -> Sequence[int]:
    """Newest first."""
    return [int(path.name.removeprefix("step-")) for path in checkpoints(out)]
