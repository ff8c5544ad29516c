"""What others published about fine-tuning: tokens a second and peak memory, each with its source.

Other people's trainers, not ours: a fused kernel or a compiler makes theirs faster, padding makes them slower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from elias.domain.footprint import KNOWN_SHAPES, ModelShape
from elias_trainer.contract import Method, Recipe

WIKI = "https://github.com/hiyouga/LLaMA-Factory/wiki/Performance-comparison"
QWEN = "https://github.com/QwenLM/Qwen/blob/main/README.md#profiling-of-memory-and-speed"
TORCHTUNE = "https://github.com/pytorch/torchtune#memory-and-training-speed"
FMS = "https://github.com/foundation-model-stack/fms-acceleration/tree/main/scripts/benchmarks/refs"
VECTOR = "https://github.com/VectorInstitute/vectorlm (docs/reference_throughput.md)"
LITGPT = "https://github.com/Lightning-AI/litgpt/blob/main/config_hub/finetune/README.md"

GIB = 2**30
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALPACA_TOKENS = 115
"""Assumed: Alpaca's mean example with its prompt; litgpt states the time, not the tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    model: str
    shape: ModelShape
    gpu: str
    recipe: Recipe
    source: str
    tokens_per_s: float | None = None
    peak_bytes: float | None = None
    note: str = ""

    @property
    def what(self) -> str:
        recipe = self.recipe
        size = f"{recipe.batch_size} x {recipe.sequence_length}"
        return f"{self.model}, {recipe.method}, {size}, {self.gpu}" + (f" ({self.note})" if self.note else "")


DEEPSEEK_7B = KNOWN_SHAPES["deepseek-ai/deepseek-coder-6.7b-instruct"]
DEEPSEEK_1B = KNOWN_SHAPES["deepseek-ai/deepseek-coder-1.3b-instruct"]
LLAMA_3_8B = KNOWN_SHAPES["meta-llama/Llama-3.1-8B"]
LLAMA_2_7B = replace(DEEPSEEK_7B, vocabulary=32000)
"""DeepSeek-Coder 6.7B's shape but for 256 tokens of vocabulary."""
QWEN_1B8 = replace(DEEPSEEK_1B, vocabulary=151936, attention_bias=True)
"""Qwen 1.8B: DeepSeek-Coder 1.3B's layers under a larger vocabulary."""
QWEN_7B = replace(DEEPSEEK_7B, vocabulary=151936, attention_bias=True)
MISTRAL_7B = replace(LLAMA_3_8B, vocabulary=32000)

_PLAIN = Recipe(gradient_checkpointing=True, rank=8, dropout=0.0)


def _sized(method: Method, batch: int, length: int, **more: object) -> Recipe:
    return replace(_PLAIN, method=method, batch_size=batch, sequence_length=length, **more)  # type: ignore[arg-type]


def _wiki(method: Method, batch: int, length: int, tokens: float, gib: float) -> Figure:
    return Figure(
        model="Llama-2-7B", shape=LLAMA_2_7B, gpu="A100 40GB", recipe=_sized(method, batch, length),
        source=WIKI, tokens_per_s=tokens, peak_bytes=gib * GIB, note="Hugging Face",
    )  # fmt: skip


def _qwen(name: str, shape: ModelShape, length: int, step_s: float, gib: float) -> Figure:
    recipe = _sized(Method.LORA, 1, length, accumulation=8, rank=64)
    return Figure(
        model=name, shape=shape, gpu="A100 80GB", recipe=recipe, source=QWEN,
        tokens_per_s=8 * length / step_s, peak_bytes=gib * GIB,
    )  # fmt: skip


def _fms(method: Method, batch: int, gpu: str, tokens: float, peak: float | None = None) -> Figure:
    recipe = _sized(method, batch, 4096, rank=16, target_modules=ATTENTION)
    return Figure(
        model="Mistral-7B", shape=MISTRAL_7B, gpu=gpu, recipe=recipe, source=FMS, tokens_per_s=tokens, peak_bytes=peak
    )


def _litgpt(method: Method, batch: int, minutes: float, gigabytes: float) -> Figure:
    tokens = 2 * 2000 * ALPACA_TOKENS / (minutes * 60)
    recipe = _sized(method, batch, ALPACA_TOKENS, rank=32, gradient_checkpointing=False)
    return Figure(
        model="Llama-3.1-8B", shape=LLAMA_3_8B, gpu="A10G", recipe=recipe, source=LITGPT, tokens_per_s=tokens,
        note="tokens assumed",
    )  # fmt: skip


FIGURES = (
    _wiki(Method.LORA, 4, 1024, 2954, 17),
    _wiki(Method.QLORA, 4, 1024, 2415, 9),
    _wiki(Method.QLORA, 1, 1024, 2295, 6),
    _wiki(Method.QLORA, 1, 2048, 2741, 7),
    _wiki(Method.QLORA, 1, 4096, 2926, 9),
    _qwen("Qwen-1.8B", QWEN_1B8, 256, 1.0, 6.7),
    _qwen("Qwen-1.8B", QWEN_1B8, 1024, 1.1, 8.4),
    _qwen("Qwen-1.8B", QWEN_1B8, 2048, 1.7, 11.0),
    _qwen("Qwen-1.8B", QWEN_1B8, 4096, 3.3, 16.2),
    _qwen("Qwen-7B", QWEN_7B, 256, 1.2, 20.1),
    _qwen("Qwen-7B", QWEN_7B, 512, 1.5, 20.4),
    _qwen("Qwen-7B", QWEN_7B, 1024, 2.8, 21.5),
    _qwen("Qwen-7B", QWEN_7B, 2048, 5.2, 23.8),
    _qwen("Qwen-7B", QWEN_7B, 4096, 10.1, 29.7),
    Figure(
        model="Llama-3.1-8B", shape=LLAMA_3_8B, gpu="RTX 4090", recipe=_sized(Method.LORA, 2, 2048),
        source=TORCHTUNE, tokens_per_s=3083, peak_bytes=16.2 * GIB, note="compiled",
    ),
    Figure(
        model="Llama-3.1-8B", shape=LLAMA_3_8B, gpu="RTX 4090", recipe=_sized(Method.QLORA, 2, 2048),
        source=TORCHTUNE, tokens_per_s=2413, peak_bytes=7.4 * GIB, note="compiled",
    ),
    Figure(
        model="Llama-3-8B", shape=LLAMA_3_8B, gpu="A100 80GB", recipe=_sized(Method.LORA, 8, 2048),
        source=VECTOR, tokens_per_s=4079,
    ),
    Figure(
        model="Llama-3-8B", shape=LLAMA_3_8B, gpu="A100 80GB", recipe=_sized(Method.FULL, 8, 2048),
        source=VECTOR, tokens_per_s=3550,
    ),
    _fms(Method.LORA, 4, "A100 80GB", 3598, 26108963328),
    _fms(Method.QLORA, 4, "A100 80GB", 2749, 22825932800),
    _fms(Method.LORA, 4, "L40", 2724),
    _fms(Method.QLORA, 4, "L40", 2517),
    _litgpt(Method.LORA, 1, 13.36, 19.73),
    _litgpt(Method.QLORA, 2, 21.81, 17.41),
)  # fmt: skip
