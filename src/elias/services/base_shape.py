"""How large a base's matrices are, as far as the base is at hand: a folder with config.json, a GGUF file, `starter`.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from elias_trainer.contract import STARTER, starter_gguf

_SIZES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 10_000
_LONGEST_STRING = 1 << 24
_FROM_GGUF = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseShape:
    layers: int
    sizes: Mapping[str, tuple[int, int]]
    """Module -> features in, features out."""


def base_shape(reference: str) -> BaseShape | None:
    """Of a model with Llama's modules; None where it is not at hand, or does not say."""
    try:
        path = starter_gguf() if reference == STARTER else Path(reference)
        if path.is_dir():
            return _shape(json.loads((path / "config.json").read_bytes()))
        if path.suffix == ".gguf":
            with path.open("rb") as stream:
                return _shape(_gguf_config(stream))
    except (OSError, ValueError, struct.error):
        return None  # a base that cannot be read says nothing about the adapter
    return None


def _shape(config: Any) -> BaseShape | None:
    if not isinstance(config, dict) or not all(type(config.get(n)) is int and config[n] > 0 for n in _NEEDED):
        return None
    hidden, inner, layers, heads = (config[name] for name in _NEEDED)
    width = config.get("head_dim") or hidden // heads
    keys = (config.get("num_key_value_heads") or heads) * width
    sizes = {
        "q_proj": (hidden, heads * width),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (heads * width, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    return BaseShape(layers=layers, sizes=sizes)


def _gguf_config(stream: BinaryIO) -> dict[str, Any]:
    """The entries that config.json would have; the tokenizer's and all after them stay unread."""
    if stream.read(4) != b"GGUF":
        raise ValueError("not a GGUF file")
    _, _, entries = struct.unpack("<IQQ", stream.read(20))
    config: dict[str, Any] = {}
    for _ in range(min(entries, _MOST_ENTRIES)):
        key = _value(stream, _STRING)
        if key.startswith("tokenizer."):
            break
        value = _value(stream, _number(stream, "<I"))
        name = _FROM_GGUF.get(key.partition(".")[2])
        if name:
            config[name] = value
    return config


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        length = _number(stream, "<Q")
        if length > _LONGEST_STRING:
            raise ValueError("a string longer than any name")
        return stream.read(length).decode("utf-8", errors="replace")
    if kind == _ARRAY:
        inner, length = _number(stream, "<I"), _number(stream, "<Q")
        if length > _LONGEST_STRING:
            raise ValueError("an array longer than any list of sizes")
        return [_value(stream, inner) for _ in range(length)]
    if kind not in _SIZES:
        raise ValueError(f"no such type: {kind}")
    return _number(stream, _SIZES[kind])


def _number(stream: BinaryIO, form: str) -> Any:
    return struct.unpack(form, stream.read(struct.calcsize(form)))[0]
