"""Whether a trained model is only what it should be: the expected tensors, shapes and types, and no code."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elias.errors import BadStructure
from elias.services.base_shape import BaseShape
from elias.services.safetensors import Tensor, check_finite, read_header, read_json

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_FIX = "train the model again, or get it again from where it came"
_NAME = re.compile(r"base_model\.model\.(?P<path>[\w.]+)\.lora_(?P<side>[AB])\.weight")
_LAYER = re.compile(r"\.(\d+)\.")

MEANT = {
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "bias",
    "inference_mode",
    "init_lora_weights",
    "megatron_core",
    "qalora_group_size",
}
"""What an adapter's configuration may say."""
IDLE = {
    *("alora_invocation_tokens", "alpha_pattern", "arrow_config", "auto_mapping", "corda_config"),
    *("ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "kasa_config", "layer_replication"),
    *("layers_pattern", "layers_to_transform", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config"),
    *("modules_to_save", "monteclora_config", "rank_pattern", "target_parameters", "trainable_token_indices"),
    *("use_bdlora", "use_dora", "use_qalora", "use_rslora", "velora_config"),
}
"""What it may name, but only as unused: each of them would change what the adapter is, or run code."""


def check_structure(folder: Path, base: BaseShape | None = None) -> None:
    """`folder` holds a LoRA adapter, or a whole model after full fine-tuning. Raises BadStructure naming the file."""
    if (folder / CONFIG).exists() or not (folder / "config.json").exists():
        _check_adapter(folder, base)
    else:
        _check_whole_model(folder)


def _check_adapter(folder: Path, base: BaseShape | None) -> None:
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).as_posix() not in (WEIGHTS, CONFIG):
            raise BadStructure(f"{path} does not belong in an adapter", fix=f"remove {path}")
    rank, targets = _check_config(folder / CONFIG)
    path = folder / WEIGHTS
    if not path.is_file():
        raise BadStructure(f"{path} is missing", fix=_FIX)
    tensors = read_header(path)
    _check_tensors(path, tensors, rank, targets)
    if base is not None:
        _check_against_base(path, tensors, base)
    check_finite(path, tensors)


def _check_config(path: Path) -> tuple[int, frozenset[str]]:
    config = read_json(path)
    for key, value in config.items():
        if key not in MEANT | IDLE:
            raise BadStructure(f"{path}: {key!r} does not belong in an adapter's configuration", fix=_FIX)
        if key in IDLE and value not in (None, False, {}, []):
            raise BadStructure(f"{path}: {key!r} must not be used", fix=_FIX)
    rank, targets = config.get("r"), config.get("target_modules")
    wanted: dict[str, Any] = {"peft_type": "LORA", "bias": "none"}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise BadStructure(f"{path}: {key!r} is {config[key]!r}, not {value!r}", fix=_FIX)
    if type(rank) is not int or rank < 1:
        raise BadStructure(f"{path}: 'r' is {rank!r}, not a rank", fix=_FIX)
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
        raise BadStructure(f"{path}: 'target_modules' is not a list of names", fix=_FIX)
    return rank, frozenset(targets)


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], rank: int, targets: frozenset[str]) -> None:
    """Each target module in each layer has both its matrices, of this rank, and there is nothing else."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        module = match and next((t for t in targets if f".{match['path']}".endswith(f".{t}")), None)
        if not match or module is None:
            raise BadStructure(f"{path}: the tensor {name!r} does not belong in this adapter", fix=_FIX)
        if len(tensor.shape) != 2 or tensor.shape[0 if match["side"] == "A" else 1] != rank:
            raise BadStructure(f"{path}: {name} has the shape {list(tensor.shape)}, not one of rank {rank}", fix=_FIX)
        seen[_layer(match["path"])].add(f"{module}.lora_{match['side']}")
    expected = {f"{module}.lora_{side}" for module in targets for side in "AB"}
    layers = sorted(int(layer) for layer in seen if layer)
    if not seen or layers != list(range(len(layers))):
        raise BadStructure(f"{path}: a layer is missing; it has {layers}", fix=_FIX)
    for layer, found in seen.items():
        if missing := sorted(expected - found):
            raise BadStructure(f"{path}: layer {layer or '-'} has no {missing[0]}", fix=_FIX)
    if len({tensor.dtype for tensor in tensors.values()}) != 1:
        raise BadStructure(f"{path}: its tensors are not all of one type", fix=_FIX)


def _check_against_base(path: Path, tensors: Mapping[str, Tensor], base: BaseShape) -> None:
    layers = {_layer(name) for name in tensors}
    if len(layers) != base.layers:
        raise BadStructure(f"{path}: it has {len(layers)} layers, its base has {base.layers}", fix=_FIX)
    for name, tensor in tensors.items():
        module, side = name.removesuffix(".weight").split(".")[-2:]
        if module not in base.sizes:
            continue
        size = base.sizes[module][0 if side == "lora_A" else 1]
        if tensor.shape[1 if side == "lora_A" else 0] != size:
            raise BadStructure(
                f"{path}: {name} has the shape {list(tensor.shape)}; its base has {size} there", fix=_FIX
            )


def _check_whole_model(folder: Path) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    for path in sorted(folder.rglob("*")):
        if path not in weights and not (path.parent == folder and path.suffix in (".json", ".txt", ".jinja", ".model")):
            raise BadStructure(f"{path} does not belong in a model", fix=f"remove {path}")
    if "auto_map" in read_json(folder / "config.json"):
        raise BadStructure(f"{folder / 'config.json'}: 'auto_map' asks for code to be run", fix=_FIX)
    if not weights:
        raise BadStructure(f"{folder} has no .safetensors file", fix=_FIX)
    for path in weights:
        check_finite(path, read_header(path))


def _layer(name: str) -> str:
    found = _LAYER.search(name)
    return found[1] if found else ""
