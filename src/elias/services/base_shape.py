"""How large a base is, as far as it is at hand: a folder with config.json, a GGUF file, `starter`; else by its name.

GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from elias.domain.footprint import KNOWN_SHAPES, ModelShape
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
    "vocab_size": "vocab_size",
}
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


_USUAL_VOCABULARY = 128_000
_NAMED_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z0-9])", re.IGNORECASE)
_UNNAMED_PARAMETERS = 7e9


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseShape:
    layers: int
    sizes: Mapping[str, tuple[int, int]]
    """Module -> features in, features out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeGuess:
    shape: ModelShape
    basis: str
    """Where it is from, for people."""
    factor: float
    """How far a time that was reckoned with it may be off because of it; 1 is exact."""


def model_shape(reference: str) -> ShapeGuess:
    """Never fails: what cannot be read offline is guessed from the size in its name, and said to be."""
    return _model_shape(reference, _changed_at(reference))


@lru_cache(maxsize=64)
def _model_shape(reference: str, changed_at: float) -> ShapeGuess:
    """`changed_at` makes a file that was replaced be read again."""
    known = next((shape for name, shape in KNOWN_SHAPES.items() if _is_same(name, reference)), None)
    if known is not None:
        return ShapeGuess(shape=known, basis="its published config.json", factor=1.0)
    config = _config_at(reference)
    if config is not None and (shape := _shape_of(config)) is not None:
        exact = "vocab_size" in config
        return ShapeGuess(shape=shape, basis="its own configuration", factor=1.0 if exact else 1.15)
    size = _NAMED_SIZE.search(reference.rpartition("/")[2])
    if size is None:
        basis = "assumed: its configuration is not at hand and its name tells no size, so 7 billion parameters"
        return ShapeGuess(shape=_of_size(_UNNAMED_PARAMETERS), basis=basis, factor=5.0)
    parameters = float(size[1]) * (1e9 if size[2].lower() == "b" else 1e6)
    return ShapeGuess(shape=_of_size(parameters), basis="assumed from the size in its name", factor=1.35)


def _is_same(name: str, reference: str) -> bool:
    """Base and instruct models of one size have one shape."""
    plain = [re.sub(r"-(instruct|base|chat)$", "", text.lower()) for text in (name, reference)]
    return plain[0] == plain[1]


def _changed_at(reference: str) -> float:
    path = Path(reference)
    try:
        return (path / "config.json" if path.is_dir() else path).stat().st_mtime
    except (OSError, ValueError):
        return 0.0


def _config_at(reference: str) -> Mapping[str, Any] | None:
    try:
        path = starter_gguf() if reference == STARTER else Path(reference)
        if path.is_dir():
            read = json.loads((path / "config.json").read_bytes())
            return read if isinstance(read, dict) else None
        if path.suffix == ".gguf":
            with path.open("rb") as stream:
                return _gguf_config(stream)
    except (OSError, ValueError, struct.error):
        return None  # a base that cannot be read says nothing
    return None


def _shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    if not all(type(config.get(name)) is int and config[name] > 0 for name in _NEEDED):
        return None
    try:
        return ModelShape.from_config({"vocab_size": _USUAL_VOCABULARY, **config})
    except (KeyError, TypeError):
        return None


def _of_size(parameters: float) -> ModelShape:
    """A Llama-like decoder of about so many parameters: Llama 3.1 8B's proportions, scaled in depth and width."""
    model = KNOWN_SHAPES["meta-llama/Llama-3.1-8B"]
    scale = (parameters / model.parameters) ** (1 / 3)
    hidden = max(64, round(model.hidden * scale / 64) * 64)
    return ModelShape(
        layers=max(1, round(model.layers * scale)),
        hidden=hidden,
        intermediate=round(3.5 * hidden),
        heads=hidden // 64,
        kv_heads=max(1, hidden // 256),
        vocabulary=model.vocabulary if parameters > 3e9 else 64_000,
        tied_embeddings=parameters < 3e9,
    )


def base_shape(reference: str) -> BaseShape | None:
    """Of a model with Llama's modules; None where it is not at hand, or does not say."""
    return _shape(_config_at(reference))


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
