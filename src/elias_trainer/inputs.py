"""What a segment is given, checked before a GPU second is spent on it. Standard library only."""

from __future__ import annotations

from pathlib import Path

from elias_trainer import archive, checkpoint
from elias_trainer.checkpoint import Start
from elias_trainer.contract import FailureKind, Input, Job, Method, Objective, Recipe, digest_file, from_json
from elias_trainer.failures import Refusal


def read_job(path: Path) -> Job:
    """`job.json`. Raises Refusal, which says what in it is wrong."""
    try:
        job = from_json(Job, path.read_bytes())
    except FileNotFoundError as error:
        raise Refusal(FailureKind.USER, f"there is no {path}", fix="give --job the path of a job.json") from error
    except ValueError as error:
        raise Refusal(FailureKind.USER, f"{path}: {error}", fix="write it with this version of ELIAS") from error
    if complaint := _complaint(job.recipe):
        raise Refusal(FailureKind.USER, f"{path}: {complaint}", fix="change the recipe and plan the run again")
    return job


def verify(job: Job, folder: Path) -> Start | None:
    """Compare the archive, the corpus and the checkpoint with their digests; the checkpoint, if there is one.

    Raises Refusal, kind verification, naming the file.
    """
    if job.trainer is not None and (found := archive.own_digest()) != job.trainer:
        raise _differs(archive.running_archive() or Path(archive.__file__).parent, found, job.trainer)
    corpus = inside(folder, job.corpus.path)
    if (found := digest_file(_present(corpus, job.corpus))) != job.corpus.digest:
        raise _differs(corpus, found, job.corpus.digest)
    if job.checkpoint is None:
        return None
    given = inside(folder, job.checkpoint.path)
    return checkpoint.open_given(job.checkpoint, _present(given, job.checkpoint), job)


def inside(folder: Path, path: str) -> Path:
    """A path of the job, which must stay in the folder that holds it. Raises Refusal."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise Refusal(
            FailureKind.VERIFICATION, f"the job names {path}, which is outside its folder", fix="plan the run again"
        )
    return folder / path


def _present(path: Path, given: Input) -> Path:
    if not path.exists():
        raise Refusal(
            FailureKind.VERIFICATION, f"{path} is missing; the job names it", fix="bring the job's inputs again"
        )
    return path


def _differs(path: Path, found: str, wanted: str) -> Refusal:
    return Refusal(
        FailureKind.VERIFICATION,
        f"{path} has the digest {found}, the job names {wanted}: it is not the file that was sent",
        fix="bring the job's inputs again; if it happens twice, suspect the disk or the way there",
    )


def _complaint(recipe: Recipe) -> str | None:
    """What makes this recipe impossible, or None."""
    for name in ("batch_size", "accumulation", "sequence_length", "rank"):
        if getattr(recipe, name) < 1:
            return f"{name} must be at least 1"
    if recipe.max_steps is not None and recipe.max_steps < 1:
        return "max_steps must be at least 1"
    if recipe.max_steps is None and recipe.epochs <= 0:
        return "epochs must be above 0"
    if not 0 <= recipe.dropout < 1 or not 0 <= recipe.warmup_share <= 1:
        return "dropout must be in [0, 1) and warmup_share in [0, 1]"
    if recipe.objective is Objective.DPO and recipe.method is Method.FULL:
        return "dpo compares with the untrained base, which full fine-tuning changes; use lora or qlora"
    if recipe.objective is Objective.DPO and recipe.packing:
        return "preference pairs are not packed; leave packing off for dpo"
    return None
