"""How much memory a training job needs: weights, gradients, optimizer, activations.

For Llama-like decoders. A model, not a measurement: `make bench-memory` prints the table of predicted beside published
and measured values. Activation terms follow Korthikanti et al. 2022 (arXiv:2205.05198), without
tensor parallelism and with attention that stores no score matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elias_trainer.contract import Method, Objective, Precision, Recipe

NF4_BYTES = 4.127 / 8
"""Four bits a weight, and 0.127 for its doubly quantized block scale (Dettmers et al. 2023, arXiv:2305.14314)."""
RUNTIME_BYTES = 700 * 2**20
"""CUDA context, kernels and fragmentation: an assumption, not a measurement. Python with torch takes about as much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The numbers of a `config.json` that decide size and speed."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied_embeddings: bool
    attention_bias: bool = False
    head_size: int = 0
    """0 is hidden / heads."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """From a Llama-like `config.json`. Raises KeyError naming what is missing."""
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
            vocabulary=config["vocab_size"],
            tied_embeddings=config.get("tie_word_embeddings", False),
            attention_bias=config.get("attention_bias", config.get("model_type") == "qwen2"),
            head_size=config.get("head_dim") or 0,
        )

    @property
    def per_head(self) -> int:
        return self.head_size or self.hidden // self.heads

    @property
    def linear_shapes(self) -> Mapping[str, tuple[int, int]]:
        """Module name -> (outputs, inputs), of one layer."""
        queries, keys = self.heads * self.per_head, self.kv_heads * self.per_head
        return {
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }

    @property
    def linear_parameters(self) -> int:
        """Of the layers' matrices: what NF4 quantizes."""
        return self.layers * sum(out * inputs for out, inputs in self.linear_shapes.values())

    @property
    def other_parameters(self) -> int:
        """Embeddings, head, norms and biases."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        biases = (self.heads + 2 * self.kv_heads) * self.per_head if self.attention_bias else 0
        return embeddings + self.layers * (2 * self.hidden + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, recipe: Recipe) -> int:
        """LoRA's A and B for each target module of each layer."""
        targets = [shape for name, shape in self.linear_shapes.items() if name in recipe.target_modules]
        return self.layers * sum(recipe.rank * (out + inputs) for out, inputs in targets)


KNOWN_SHAPES: Mapping[str, ModelShape] = {
    "deepseek-ai/deepseek-coder-1.3b-instruct": ModelShape(
        layers=24, hidden=2048, intermediate=5504, heads=16, kv_heads=16, vocabulary=32256, tied_embeddings=False
    ),
    "deepseek-ai/deepseek-coder-6.7b-instruct": ModelShape(
        layers=32, hidden=4096, intermediate=11008, heads=32, kv_heads=32, vocabulary=32256, tied_embeddings=False
    ),
    "tiny": ModelShape(
        layers=4, hidden=128, intermediate=448, heads=4, kv_heads=2, vocabulary=259, tied_embeddings=True
    ),
    "starter": ModelShape(
        layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, vocabulary=49152, tied_embeddings=True
    ),
    "Qwen/Qwen2.5-7B": ModelShape(
        layers=28,
        hidden=3584,
        intermediate=18944,
        heads=28,
        kv_heads=4,
        vocabulary=152064,
        tied_embeddings=False,
        attention_bias=True,
    ),
    "meta-llama/Llama-3.1-8B": ModelShape(
        layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocabulary=128256, tied_embeddings=False
    ),
}
"""From the models' published `config.json`; any other base is read from its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes on one accelerator."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    runtime: int = RUNTIME_BYTES

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.runtime


def footprint(shape: ModelShape, recipe: Recipe, precision: Precision) -> Footprint:
    """What one device holds at the peak of a step; `precision` is the resolved one, never `auto`."""
    width = 4 if precision is Precision.FP32 else 2
    trained = shape.parameters if recipe.method is Method.FULL else shape.adapter_parameters(recipe)
    return Footprint(
        weights=round(_weight_bytes(shape, recipe, width)),
        gradients=trained * 4,
        optimizer=trained * 8,
        activations=_activation_bytes(shape, recipe, width),
    )


def _weight_bytes(shape: ModelShape, recipe: Recipe, width: int) -> float:
    if recipe.method is Method.FULL:
        return shape.parameters * 4
    adapter = shape.adapter_parameters(recipe) * 4
    if recipe.method is Method.QLORA:
        # PEFT prepares a quantized base by holding all that is not quantized in float32.
        return shape.linear_parameters * NF4_BYTES + shape.other_parameters * 4 + adapter
    return shape.parameters * width + adapter


def _activation_bytes(shape: ModelShape, recipe: Recipe, width: int) -> int:
    rows = recipe.batch_size * (2 if recipe.objective is Objective.DPO else 1)
    tokens = rows * recipe.sequence_length
    # Float32 embeddings, as a quantized base has, make what runs between the layers float32 too.
    boundary = tokens * shape.hidden * (4 if recipe.method is Method.QLORA else width)
    queries, keys = shape.heads * shape.per_head, shape.kv_heads * shape.per_head
    # Two norms (with the float32 copies that autograd keeps), queries and keys before and after their rotation, values,
    # attention's output, and the four operands of the gated product.
    attention = 3 * queries + 3 * keys
    inside = tokens * (2 * shape.hidden * (width + 4) + (attention + 4 * shape.intermediate) * width)
    # Logits, their float32 copy and its gradient stand at the end of the forward pass.
    head = tokens * shape.vocabulary * (width + 8)
    if recipe.gradient_checkpointing:
        return shape.layers * boundary + max(inside, head)
    return shape.layers * (boundary + inside + tokens * _dropout_bytes(shape, recipe, width)) + head


def _dropout_bytes(shape: ModelShape, recipe: Recipe, width: int) -> int:
    """Of one token in one layer: each adapter keeps its own dropped-out copy of its input, and the mask."""
    if recipe.method is Method.FULL or not recipe.dropout:
        return 0
    inputs = (inputs for name, (_, inputs) in shape.linear_shapes.items() if name in recipe.target_modules)
    return sum(inputs) * (width + 1)
