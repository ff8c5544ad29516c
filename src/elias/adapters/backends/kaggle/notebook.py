"""The kernel that is pushed: the template, a notebook or a script, with this segment's names and numbers filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from elias.errors import ConfigError
from elias_trainer.contract import Digest

TEMPLATE = "template.ipynb"
PAGE_ONLY = "page-only"
"""Tag of cells that draw for whoever opens the notebook."""
MARKS = tuple(
    f"{{{{{name}}}}}" for name in ("SEGMENT", "DATASET", "PARCEL", "KEY_DATASET", "BASE_DATASET", "SECONDS", "GPUS")
)
LARGEST_BYTES = 1_000_000
"""Kaggle takes no larger kernel; what is big travels in the dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """What the template's `{{NAME}}` marks are replaced with."""

    segment: str
    dataset: str
    parcel: Digest
    key_dataset: str
    """Empty where the key is a Secret, or nothing is sealed."""
    base_dataset: str
    """Empty where the base comes from elsewhere."""
    seconds: int
    gpus: int


def template_text() -> str:
    """The template as it is shipped, for `elias kaggle template`."""
    return resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")


def write_kernel(folder: Path, slug: str, filling: Filling, metadata: dict[str, object], own: str | None) -> None:
    """The notebook and `kernel-metadata.json` in `folder`. Raises what `read_template` raises."""
    text = read_template(own)
    marks = {
        "{{SEGMENT}}": filling.segment,
        "{{DATASET}}": filling.dataset,
        "{{PARCEL}}": str(filling.parcel),
        "{{KEY_DATASET}}": filling.key_dataset,
        "{{BASE_DATASET}}": filling.base_dataset,
        "{{SECONDS}}": str(filling.seconds),
        "{{GPUS}}": str(filling.gpus),
    }
    for mark, value in marks.items():
        text = text.replace(mark, value)
    folder.mkdir(parents=True, exist_ok=True)
    is_notebook = own is None or own.endswith(".ipynb")
    code = "notebook.ipynb" if is_notebook else "script.py"
    (folder / code).write_text(text, encoding="utf-8")
    known: dict[str, object] = {
        "title": slug.split("/")[1],
        "id": slug,
        "code_file": code,
        "language": "python",
        "kernel_type": "notebook" if is_notebook else "script",
        "is_private": True,
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(known | metadata), encoding="utf-8")


def as_script(notebook: str) -> str:
    """A template's code cells, one after another: a kernel of type script, which starts faster, and shows no cells.

    It goes without those tagged `page-only`, such as the plot.
    """
    cells = json.loads(notebook)["cells"]
    kept = [c for c in cells if c["cell_type"] == "code" and PAGE_ONLY not in c["metadata"].get("tags", ())]
    return "\n\n\n".join("".join(cell["source"]) for cell in kept) + "\n"


def read_template(own: str | None) -> str:
    """The shipped template, or one of the user's own.

    Raises ConfigError when that cannot be read, lost a mark or its kernelspec, or is larger than Kaggle takes.
    """
    if own is None:
        return template_text()
    again = "start again from: elias kaggle template --out FILE"
    path = Path(own).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        is_notebook = own.endswith(".ipynb")
        if is_notebook and "kernelspec" not in json.loads(text)["metadata"]:
            raise ConfigError(f"the notebook template {own} has no metadata.kernelspec", fix=again)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the notebook template {path} cannot be read: {error!r}", fix=again) from error
    for mark in MARKS:
        if mark not in text:
            raise ConfigError(f"the notebook template {own} has no {mark}", fix=again)
    if len(text.encode()) > LARGEST_BYTES:
        raise ConfigError(f"the notebook template {own} is over {LARGEST_BYTES} bytes", fix="remove its outputs")
    return text
