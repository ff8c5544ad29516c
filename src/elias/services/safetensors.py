"""Reads safetensors files with suspicion and without torch: the header, and whether every number is finite.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elias.domain.dsse import strict_json
from elias.errors import BadStructure

LONGEST_HEADER = 100_000_000
"""As the format's own reader has it."""
FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
"""The types that weights may have here, and their bytes."""
_EXPONENT = {"F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
"""Where all exponent bits are set, IEEE 754 has an infinity or no number at all."""
_CHUNK = 1 << 22
_FIX = "train the model again, or get it again from where it came"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Bytes from the start of the file."""
    count: int


def read_header(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name; they must fill the file without gap or overlap. Raises BadStructure."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise BadStructure(f"{path}: its header does not fit in it", fix=_FIX)
        text = stream.read(length)
    try:
        raw = strict_json(text)
        metadata = raw.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata is not text")
        tensors = {name: _tensor(name, entry, 8 + length) for name, entry in raw.items()}
        _check_layout(tensors, 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadStructure(f"{path}: its header is broken: {error}", fix=_FIX) from error
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises BadStructure naming the first tensor that holds an infinity or a NaN."""
    import numpy

    for name, tensor in tensors.items():
        kind, exponent = _EXPONENT[tensor.dtype]
        if tensor.count == 0:
            continue
        numbers = numpy.memmap(path, dtype=kind, mode="r", offset=tensor.begin, shape=(tensor.count,))
        for start in range(0, tensor.count, _CHUNK):
            if ((numbers[start : start + _CHUNK] & exponent) == exponent).any():
                raise BadStructure(f"{path}: {name} holds numbers that are not finite", fix=_FIX)


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file. Raises BadStructure."""
    try:
        value = strict_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BadStructure(f"{path} is missing", fix=_FIX) from error
    except ValueError as error:
        raise BadStructure(f"{path} is not JSON: {error}", fix=_FIX) from error
    if not isinstance(value, dict):
        raise BadStructure(f"{path} is not a JSON object: {json.dumps(value)[:40]}", fix=_FIX)
    return value


def _tensor(name: str, entry: Any, data: int) -> Tensor:
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is described by {sorted(entry)}")
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has a size that is not a whole number")
    if entry["dtype"] not in FLOATS:
        raise ValueError(f"{name} is of type {entry['dtype']!r}, not one of {', '.join(FLOATS)}")
    count = math.prod(shape)
    if end - begin != count * FLOATS[entry["dtype"]]:
        raise ValueError(f"{name} has {end - begin} bytes, but its shape needs {count * FLOATS[entry['dtype']]}")
    return Tensor(dtype=entry["dtype"], shape=shape, begin=data + begin, count=count)


def _check_layout(tensors: Mapping[str, Tensor], data: int, size: int) -> None:
    reached = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].count)):
        if tensor.begin != reached:
            raise ValueError(f"{name} does not begin where the tensor before it ends")
        reached += tensor.count * FLOATS[tensor.dtype]
    if reached != size:
        raise ValueError(f"its tensors end at byte {reached}, the file at {size}")
