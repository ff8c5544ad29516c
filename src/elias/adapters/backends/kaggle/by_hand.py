"""A segment for a person to start: its dataset and its notebook in folders, and what to type. Nothing is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from elias.adapters.backends.bundle import verify_bundle
from elias.adapters.backends.kaggle.adopted import SCHEME
from elias.adapters.backends.kaggle.notebook import Filling, write_kernel
from elias.adapters.backends.kaggle.sender import destination_of, processes_for, slug_of
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.parcels import make_parcel
from elias.domain.label import Label
from elias.errors import InputError, LabelForbids
from elias.ports.backend import Bundle
from elias_trainer.contract import write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Whose account it will be, and which node asks."""

    account: str
    node: str
    key: str | None
    """The node's age identity, for private data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kit:
    commands: tuple[str, ...]
    """To type, in order."""
    address: str
    """`kaggle://…`, where `elias run adopt` will find it."""


def lay_out(bundle: Bundle, folder: Path, owner: Owner, settings: KaggleSettings) -> Kit:
    """`dataset/`, `notebook/` and, where the key of private data travels as a dataset, `key/`, in a new `folder`.

    Raises InputError where the folder holds something, LabelForbids, ConfigError, MissingPackage or DigestMismatch.
    """
    if bundle.label is Label.SECRET:
        raise LabelForbids("secret data never leaves this machine", fix="train with --strategy local")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty", fix="name a folder that is not there yet")
    verify_bundle(bundle)
    parcel = make_parcel(bundle, folder / "dataset", destination_of(settings, owner.key))
    refs = {"dataset": _ref(owner, f"data {bundle.job.segment}")}
    _describe(folder / "dataset", refs["dataset"], parcel.digest)
    if parcel.sealed and settings.key_by == "dataset":
        refs["key"] = _ref(owner, f"key {bundle.job.segment}")
        (folder / "key").mkdir(mode=0o700)
        (folder / "segment.key").rename(folder / "key" / "segment.key")
        _describe(folder / "key", refs["key"], "key")
    (folder / "segment.key").unlink(missing_ok=True)  # for a Secret it travels sealed, in the dataset
    kernel, margin = _ref(owner, bundle.job.segment), settings.margin.total_seconds()
    seconds = settings.session_limit.total_seconds() - margin
    filling = Filling(
        segment=bundle.job.segment,
        dataset=refs["dataset"].split("/")[1],
        parcel=parcel.digest,
        key_dataset=refs["key"].split("/")[1] if "key" in refs else "",
        base_dataset=(settings.base_source or "").rpartition("/")[2],
        seconds=round(min(seconds, bundle.job.limits.seconds or seconds) + margin / 2),
        gpus=processes_for(settings, bundle),
    )
    metadata: dict[str, object] = {
        "enable_gpu": bool(settings.accelerator),
        "enable_internet": settings.internet,
        "dataset_sources": [*refs.values(), *([settings.base_source] if settings.base_source else [])],
    }
    write_kernel(folder / "notebook", kernel, filling, metadata, settings.template)
    commands = _commands(folder, refs, kernel, round(filling.seconds + margin / 2), settings.accelerator)
    return Kit(commands=commands, address=f"{SCHEME}{kernel}")


def _commands(folder: Path, refs: dict[str, str], kernel: str, session_s: int, accelerator: str) -> tuple[str, ...]:
    shape = f" --accelerator {accelerator}" if accelerator else ""
    return (
        *(f"kaggle datasets create -p {folder / name}" for name in refs),
        *(f"kaggle datasets status {ref}" for ref in refs.values()),
        f"kaggle kernels push -p {folder / 'notebook'} -t {session_s}{shape}",
        f"kaggle kernels status {kernel}",
        *(f"kaggle datasets delete --yes {ref}" for name, ref in refs.items() if name == "key"),
    )


def _ref(owner: Owner, name: str) -> str:
    return f"{owner.account}/{slug_of(owner.node, name)}"


def _describe(folder: Path, ref: str, description: str) -> None:
    metadata = {"id": ref, "title": ref.split("/")[1], "licenses": [{"name": "other"}], "description": description}
    write_whole(folder / "dataset-metadata.json", json.dumps(metadata).encode())
