"""Writes a PEFT LoRA adapter as the GGUF LoRA that llama.cpp loads.

llama.cpp keeps the query and key rows of a Llama in another order than transformers does (rotary halves side by side),
so the rows of `lora_B` for those two move with them; the rest is a matter of names.
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elias.adapters.engines.gguf_header import GgufHeader
from elias.errors import BadStructure, EngineError, MissingPackage
from elias_trainer.contract import canonical_json, digest_bytes, file_digests, sync_folder

if TYPE_CHECKING:
    import numpy as np

    Tensors = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

CONVERTER = 1
"""Part of every file's name: raised when the same adapter would be written in another way."""

_ROTARY_PERMUTED = {"llama": True, "qwen2": False, "qwen3": False}
"""Architectures whose names and shapes are one to one, and whether query and key rows are permuted."""

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
_PLAIN = {"use_dora": False, "use_rslora": False, "bias": "none", "fan_in_fan_out": False}
_EMPTY = ("modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "alora_invocation_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One module's two matrices: `a` is rank x in, `b` is out x rank."""

    a: Any
    b: Any


def cannot_convert(adapter: Path, header: GgufHeader) -> str | None:
    """None, or why llama.cpp cannot serve this adapter on that base."""
    if header.architecture not in _ROTARY_PERMUTED:
        known = ", ".join(_ROTARY_PERMUTED)
        return f"adapters for the architecture {header.architecture!r} are not converted to GGUF ({known} are)"
    try:
        config = json.loads((adapter / "adapter_config.json").read_bytes())
    except (OSError, ValueError):
        return f"{adapter} holds no readable adapter_config.json: it is not a LoRA adapter"
    if config.get("peft_type") != "LORA":
        return f"it is a {config.get('peft_type')} adapter; llama.cpp takes LoRA"
    for option, plain in _PLAIN.items():
        if config.get(option, plain) != plain:
            return f"its option {option}={config[option]!r} has no counterpart in llama.cpp"
    unusual = next((option for option in _EMPTY if config.get(option)), None)
    return f"its option {unusual} has no counterpart in llama.cpp" if unusual else None


def gguf_lora(adapter: Path, header: GgufHeader, home: Path) -> Path:
    """The converted file below `home`, under a name made of the adapter's digest; written once, whole.

    Raises BadStructure when a tensor is not a LoRA matrix of the base, MissingPackage without gguf.
    """
    shape = [header.architecture, header.blocks, header.heads, header.kv_heads]
    name = digest_bytes(canonical_json([CONVERTER, shape, file_digests(adapter)])).hex
    target = home / f"{name}.gguf"
    if target.exists():
        return target
    home.mkdir(parents=True, exist_ok=True)
    scratch = home / f".{name}.{os.getpid()}.part"
    try:
        _write(scratch, _alpha(adapter), _named(read_pairs(adapter / "adapter_model.safetensors"), header), header)
        with scratch.open("rb") as stream:
            os.fsync(stream.fileno())
        scratch.replace(target)
        sync_folder(home)
    except OSError as error:
        fix = f"free some space under {home}, then try again"
        raise EngineError(f"the adapter could not be written as GGUF: {error}", fix=fix) from error
    finally:
        scratch.unlink(missing_ok=True)
    return target


def read_pairs(weights: Path) -> dict[str, Pair]:
    """Module name, as in transformers, -> its matrices in float32. Raises BadStructure."""
    sides: dict[str, dict[str, Any]] = {}
    for name, tensor in _read_safetensors(weights).items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise _bad(f"{weights.name}: {name!r} is not a LoRA matrix")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    for module, found in sides.items():
        if len(found) != 2 or found["A"].shape[0] != found["B"].shape[1]:
            raise _bad(f"{weights.name}: the two matrices of {module} do not belong together")
    return {module: Pair(a=found["A"], b=found["B"]) for module, found in sorted(sides.items())}


def permute_rotary(rows: Any, heads: int) -> Any:
    """Rows of a query or key projection, from transformers' order (halves) to llama.cpp's (pairs)."""
    out = rows.shape[0]
    if out % (2 * heads):
        raise _bad(f"{out} rows cannot be those of {heads} heads")
    return rows.reshape(heads, 2, out // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _named(pairs: dict[str, Pair], header: GgufHeader) -> dict[str, Pair]:
    gguf = _gguf()
    architecture = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == header.architecture)
    names = gguf.get_tensor_name_map(architecture, header.blocks)
    found: dict[str, Pair] = {}
    for module, pair in pairs.items():
        name = names.get_name(module)
        if name is None or not name.startswith("blk."):
            raise _bad(f"{module} is not a projection inside a block of a {header.architecture} model")
        found[f"{name}.weight"] = _reordered(name, pair, header)
    return found


def _reordered(name: str, pair: Pair, header: GgufHeader) -> Pair:
    heads = {"attn_q": header.heads, "attn_k": header.kv_heads}.get(name.rsplit(".", 1)[-1])
    if heads is None or not _ROTARY_PERMUTED[header.architecture]:
        return pair
    return Pair(a=pair.a, b=permute_rotary(pair.b, heads))


def _write(path: Path, alpha: float, pairs: dict[str, Pair], header: GgufHeader) -> None:
    gguf = _gguf()
    writer = gguf.GGUFWriter(path, header.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, pair in pairs.items():
        writer.add_tensor(f"{name}.lora_a", _packed(pair.a))
        writer.add_tensor(f"{name}.lora_b", _packed(pair.b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _packed(tensor: Any) -> Any:
    return import_module("numpy").ascontiguousarray(tensor, dtype="float32")


def _alpha(adapter: Path) -> float:
    return float(json.loads((adapter / "adapter_config.json").read_bytes())["lora_alpha"])


def _read_safetensors(path: Path) -> Tensors:
    """By hand, so that a node that only serves needs no training package. Source: the safetensors format's README."""
    numpy = import_module("numpy")
    try:
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        found: Tensors = {}
        for name, spec in header.items():
            if name == "__metadata__":
                continue
            begin, end = spec["data_offsets"]
            raw = numpy.frombuffer(data[8 + length + begin : 8 + length + end], dtype=_DTYPES[spec["dtype"]])
            if spec["dtype"] == "BF16":  # the upper half of a float32
                raw = (raw.astype("<u4") << 16).view("<f4")
            found[name] = raw.astype("<f4").reshape(spec["shape"])
        return found
    except (OSError, struct.error, KeyError, TypeError, ValueError) as error:
        raise _bad(f"{path} is not a whole safetensors file: {error}") from error


def _bad(what: str) -> BadStructure:
    return BadStructure(what, fix="check it with `elias model verify`, or serve it with the engine `reference`")


def _gguf() -> Any:
    try:
        return import_module("gguf")
    except ModuleNotFoundError as error:
        what = "writing an adapter for llama.cpp needs the package 'gguf'"
        raise MissingPackage(what, fix="pip install 'elias-node[starter]'") from error
