"""A trainer that trains nothing but keeps the whole contract: files, checkpoints, deadline, lease, signals.

For tests of what stands around a trainer: backends, the coordinator, crashes. It is a real program in a real process
and needs the standard library only. Each step's digest follows from the one before, and the adapter is all of them in
a row, so that a lost, repeated or reordered step shows in its bytes.
"""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from pathlib import Path

from elias.testing.fake_trainer.program import adapter_bytes, next_digest
from elias_trainer.contract import BaseModel, Digest, digest_bytes, write_whole

_EPOCH = (1980, 1, 1, 0, 0, 0)
_REAL_MODULES = ("strict", "contract", "folders", "parcel", "carry")
"""Of the real trainer: what it takes to be carried out on a foreign machine."""


def fake_base(
    *, step_s: float = 0.01, fail: str | None = None, die_at: int | None = None, held: tuple[Path, int] | None = None
) -> BaseModel:
    """The base that tells the fake trainer how to behave.

    `step_s` seconds a step takes; `fail` such as `user@5`, the kind of failure it reports in place of step 5;
    `die_at` the step in place of which it vanishes without a word; `held` a file on its machine and a number of steps,
    after which it does no more while that file is there (it still listens to its deadline, its lease and signals).
    """
    words = [f"step_s={step_s}"] + ([f"fail={fail}"] if fail else []) + ([f"die_at={die_at}"] if die_at else [])
    words += [f"held={held[0]}@{held[1]}"] if held else []
    return BaseModel(reference="fake:" + ",".join(words))


def expected_adapter(corpus: bytes, steps: int, seed: int = 0) -> Digest:
    """Of `adapter_model.safetensors` after a run over `corpus` that nothing ever interrupted."""
    digest, digests = digest_bytes(corpus), list[str]()
    for step in range(1, steps + 1):
        digests.append(next_digest(digests, step, seed, digest))
    return digest_bytes(adapter_bytes(digests))


def build_fake_trainer(path: Path) -> Path:
    """Write the archive, the same bytes every time."""
    program = resources.files("elias.testing.fake_trainer").joinpath("program.py").read_bytes()
    files = {"__main__.py": program, "elias_trainer/__init__.py": b""}
    for name in _REAL_MODULES:
        files[f"elias_trainer/{name}.py"] = resources.files("elias_trainer").joinpath(f"{name}.py").read_bytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    write_whole(path, stream.getvalue())
    return path
