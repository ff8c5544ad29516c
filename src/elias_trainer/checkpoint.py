"""A run's state between two steps, in a folder that is whole or absent. Reading and checking need no torch.

    out/checkpoint/step-00000012/
      state.safetensors   parameter/<name>, optimizer/<key>/<name>: the trained weights and what AdamW knows of them
      state.json          step, loss scaler, the segment's sums so far
      manifest.json       digests of the two above, of recipe, base and corpus, and the parent

A checkpoint's digest is the `tree_digest` of its folder, so it covers the manifest too. `parent` is the digest of the
checkpoint that the segment was given to start from (null for the first segment): a chain from the last to the first.
There is no generator state in it: order and dropout follow from the recipe's seed and the step alone. Nor is there
any time: the same steps give the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias_trainer.contract import (
    CheckpointRef,
    Digest,
    FailureKind,
    Input,
    Job,
    canonical_json,
    digest_bytes,
    digest_file,
    file_digests,
    write_whole,
)
from elias_trainer.failures import Refusal
from elias_trainer.folders import drop_folder, whole_folder

SCHEMA = "elias.checkpoint/1"
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", "state.safetensors"
_OWN = "digest"
"""In the manifest: of all the rest of it, so that of two files that disagree one knows which was changed."""
_FIX = "start from another checkpoint: each step's folder is complete in itself"


class Unreadable(Exception):
    """A checkpoint with a torn, changed or missing file, which the text names."""


@dataclass(kw_only=True, slots=True)
class State:
    """What state.json holds."""

    step: int = 0
    segment: str = ""
    started_at_step: int = 0
    """Of that segment; its sums below count from there."""
    tokens: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    scaler: dict[str, Any] | None = None
    """Of float16 training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A whole checkpoint to go on from."""

    folder: Path
    digest: Digest
    state: State
    base: Digest
    """Of the base it was trained on."""

    @property
    def tensors(self) -> Path:
        return self.folder / TENSORS


def open_given(given: Input, folder: Path, job: Job) -> Start:
    """The checkpoint that the job names, checked in full. Raises Refusal naming the file that differs."""
    try:
        start = _open(folder, job)
    except Unreadable as error:
        raise Refusal(FailureKind.VERIFICATION, str(error), fix=_FIX) from error
    if start.digest != given.digest:
        raise Refusal(
            FailureKind.VERIFICATION,
            f"{folder / MANIFEST} or a file beside it is not the one of the job: the folder's digest is "
            f"{start.digest}, the job names {given.digest}",
            fix=_FIX,
        )
    return start


def newest(out: Path, job: Job) -> tuple[Start | None, list[str]]:
    """The newest whole checkpoint of this run in `out`, and why newer ones were passed over."""
    passed_over: list[str] = []
    for folder in sorted(_folders(out), reverse=True):
        try:
            return _open(folder, job), passed_over
        except Unreadable as error:
            passed_over.append(str(error))
    return None, passed_over


def write(out: Path, job: Job, *, state: State, base: Digest, tensors: Mapping[str, Any]) -> CheckpointRef:
    """Write it whole, then drop what is older than the newest `keep_checkpoints`."""
    from safetensors.torch import save_file

    folder = out / "checkpoint" / f"step-{state.step:08d}"
    with whole_folder(folder) as scratch:
        save_file(dict(tensors), scratch / TENSORS)
        write_whole(scratch / STATE, canonical_json(dataclasses.asdict(state)))
        files = {name: digest_file(scratch / name) for name in (STATE, TENSORS)}
        manifest = _manifest(job, state.step, base, files)
        write_whole(scratch / MANIFEST, manifest)
    _rotate(out, job.limits.keep_checkpoints)
    digest = _folder_digest(files | {MANIFEST: digest_bytes(manifest)})
    return CheckpointRef(step=state.step, path=folder.relative_to(out).as_posix(), digest=digest)


def _manifest(job: Job, step: int, base: Digest, files: Mapping[str, Digest]) -> bytes:
    body = {
        "schema": SCHEMA,
        "step": step,
        "parent": job.checkpoint.digest if job.checkpoint else None,
        "base": base,
        "files": files,
    } | _expected(job)
    return canonical_json(body | {_OWN: digest_bytes(canonical_json(body))})


def _expected(job: Job) -> dict[str, Any]:
    """What a checkpoint must have been made with, for this job to go on from it."""
    return {"run": job.run, "recipe": recipe_digest(job), "corpus": job.corpus.digest}


def recipe_digest(job: Job) -> Digest:
    return digest_bytes(canonical_json(dataclasses.asdict(job.recipe)))


def _open(folder: Path, job: Job) -> Start:
    manifest = _read_manifest(folder / MANIFEST)
    for name, value in _expected(job).items():
        if manifest.get(name) != value:
            raise Unreadable(f"{folder / MANIFEST} is of another {name}: {manifest.get(name)}, the job has {value}")
    files = _checked_files(folder, manifest)
    try:
        state = State(**_read(folder / STATE))
        base = Digest(str(manifest.get("base")))
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{folder} does not hold a checkpoint of this program: {error}") from error
    return Start(folder=folder, digest=_folder_digest(files), state=state, base=base)


def _checked_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Digest]:
    """Every file's digest. Raises Unreadable when one is not what the manifest says, or is not in it."""
    said = manifest.get("files")
    found = file_digests(folder)
    for name in (STATE, TENSORS):
        if name not in found or not isinstance(said, dict) or found[name] != said.get(name):
            raise Unreadable(f"{folder / name} is missing, torn or changed: it is not what {MANIFEST} says")
    if extra := sorted(found.keys() - {STATE, TENSORS, MANIFEST}):
        raise Unreadable(f"{folder / extra[0]} does not belong in a checkpoint")
    return found


def _folder_digest(files: Mapping[str, Digest]) -> Digest:
    """What `tree_digest` says of the folder, from digests that are known already."""
    return digest_bytes(canonical_json(files))


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read(path)
    if manifest.pop(_OWN, None) != digest_bytes(canonical_json(manifest)):
        raise Unreadable(f"{path} is torn or changed: it does not have its own digest")
    return manifest


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} is missing, torn or changed: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable(f"{path} is torn or changed: it holds no object")
    return found


def _folders(out: Path) -> Iterator[Path]:
    return (path for path in (out / "checkpoint").glob("step-*") if path.is_dir())


def _rotate(out: Path, keep: int) -> None:
    for folder in sorted(_folders(out), reverse=True)[max(keep, 1) :]:
        drop_folder(folder)
