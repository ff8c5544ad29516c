"""LoRA on a randomly initialised DeepSeek-Coder 6.7B on one CUDA GPU, by our loop and by TRL, in bfloat16.

    python bench/cuda.py [--steps N] [--rounds N] [--gradient-checkpointing] [--layers 1 --hidden 64]

Prints one JSON line: tokens a second, peak memory and the share of the card's dense peak for each side, which run one
after the other, in alternation. A shrunken model also runs on a CPU, to try the program; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainer import Side, started
from trainer_sides import STEPS_BEFORE, Turns, resident_peak_bytes, run_loop, run_trl

from elias_trainer.contract import BaseModel, Digest, Input, Job, Limits, Recipe

BATCH, LENGTH, RANK = 4, 1024, 16
LAYERS, HIDDEN = 32, 4096
NO_DIGEST = Digest("sha256:" + "0" * 64)
ROOM_WITHOUT_CHECKPOINTING = 60 * 2**30

PEAK_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10G": 70,
    "A10": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Dense bfloat16 with float32 accumulation, from NVIDIA's data sheets; the first name that the card's contains."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--hidden", type=int, default=HIDDEN)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--gradient-checkpointing", action="store_true", help="always on below 60 GiB")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work(options)
        return
    import torch

    is_shrunken = (options.layers, options.hidden) != (LAYERS, HIDDEN)
    if not torch.cuda.is_available() and not is_shrunken:
        print(json.dumps({"bench": "cuda", "skipped": "no CUDA device"}))
        return
    print(json.dumps(measure(options)))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    has_gpu = torch.cuda.is_available()
    card = torch.cuda.get_device_name() if has_gpu else "cpu"
    memory = torch.cuda.get_device_properties(0).total_memory if has_gpu else 0
    checkpointing = options.gradient_checkpointing or (has_gpu and memory < ROOM_WITHOUT_CHECKPOINTING)
    words = ["--layers", options.layers, "--hidden", options.hidden, "--steps", options.steps]
    words += ["--gradient-checkpointing"] if checkpointing else []
    command = [sys.executable, str(Path(__file__)), *map(str, words)]
    runs: dict[str, list[Side]] = {"ours": [], "trl": []}
    for number in range(options.rounds):
        for name in ("ours", "trl") if number % 2 == 0 else ("trl", "ours"):
            runs[name].append(one_run(name, [*command, "--side", name]))
    peak = next((tflops for name, tflops in PEAK_TFLOPS.items() if name in card), None)
    line: dict[str, Any] = {"bench": "cuda", "card": card, "peak_tflops": peak, "flops_per_token": flops(options)}
    for name, prefix in (("ours", ""), ("trl", "trl_")):
        speeds = [side.tokens_per_s for side in runs[name]]
        speed = sum(speeds) / len(speeds)
        line[f"{prefix}tokens_per_s"] = round(speed, 1)
        line[f"{prefix}tokens_per_s_of_each_round"] = [round(one, 1) for one in speeds]
        line[f"{prefix}peak_bytes"] = max(side.peak_bytes for side in runs[name])
        line[f"{prefix}share_of_peak"] = round(speed * flops(options) / (peak * 1e12), 4) if peak else None
    line["ratio"] = round(line["tokens_per_s"] / line["trl_tokens_per_s"], 3)
    sizes = {"layers": options.layers, "hidden": options.hidden, "batch_size": BATCH, "sequence_length": LENGTH}
    return line | sizes | {"rank": RANK, "steps": options.steps, "gradient_checkpointing": checkpointing}


def one_run(name: str, command: list[str]) -> Side:
    side = started(name, command)
    side.go()
    side.turns.append(side.hear())
    side.go()
    side.peak_bytes = side.hear()["peak_bytes"]
    side.process.wait()
    return side


def flops(options: argparse.Namespace) -> int:
    """Of the model for a token of LoRA training; what checkpointing computes again is not counted.

    Frozen matrices cost 2 a weight forward and 2 for the gradient that passes through them; causal attention 6 times
    length times width a layer (Chowdhery et al. 2022, arXiv:2204.02311, appendix B, halved for the causal mask).
    """
    config = llama_config(options)
    layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    weights = config.num_hidden_layers * layer + config.vocab_size * config.hidden_size
    return 4 * weights + 6 * config.num_hidden_layers * LENGTH * config.hidden_size


def llama_config(options: argparse.Namespace) -> Any:
    """DeepSeek-Coder 6.7B's published configuration, or a smaller one of its shape."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=32256,
        hidden_size=options.hidden,
        intermediate_size=11008 * options.hidden // HIDDEN,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // (HIDDEN // 32) or 2,
        max_position_embeddings=16384,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
        tie_word_embeddings=False,
    )


def work(options: argparse.Namespace) -> None:
    """One side, in its own process."""
    import torch

    is_cuda = torch.cuda.is_available()
    turns = Turns(options.steps, torch.cuda.max_memory_allocated if is_cuda else resident_peak_bytes)
    job = Job(
        run="bench",
        segment="bench-0001",
        base=BaseModel(reference="random"),
        corpus=Input(path="none", digest=NO_DIGEST),
        recipe=Recipe(
            rank=RANK,
            batch_size=BATCH,
            sequence_length=LENGTH,
            max_steps=STEPS_BEFORE + options.steps,
            gradient_checkpointing=options.gradient_checkpointing,
        ),
        limits=Limits(checkpoint_every_s=1e9),
    )
    with tempfile.TemporaryDirectory() as scratch:
        made = make_work(job, options)
        if options.side == "ours":
            run_loop(job, Path(scratch), turns, lambda events, ledger: made)
        else:
            parts = (made.model, spare_tokenizer(), made.plan)
            run_trl(job, Path(scratch), turns, parts, bf16=is_cuda, use_cpu=not is_cuda)
    turns.end()


def make_work(job: Job, options: argparse.Namespace) -> Any:
    """What the loop works with, around random weights and random full-length documents."""
    import torch
    from transformers import LlamaForCausalLM

    from elias_trainer import adapter
    from elias_trainer.base import LoadedBase
    from elias_trainer.device import find_device, make_deterministic
    from elias_trainer.loading import Work
    from elias_trainer.ranks import ranks_from_environment
    from elias_trainer.schedule import Plan

    device = find_device(job.recipe, world_size=1, local_rank=0)
    if options.side == "ours":
        make_deterministic(device)
    torch.manual_seed(0)
    torch.set_default_dtype(device.weights_dtype(job.recipe.method))
    with torch.device(device.torch_device):
        model = LlamaForCausalLM(llama_config(options))
    torch.set_default_dtype(torch.float32)
    base = LoadedBase(model=model, tokenizer=SimpleNamespace(pad_token_id=0), digest=NO_DIGEST, location=Path())
    adapted = adapter.prepare(base, job.recipe)
    parameters = adapter.trainable(adapted)
    return Work(
        job=job,
        base=base,
        model=adapted,
        parameters=parameters,
        optimizer=torch.optim.AdamW(parameters.values(), lr=1e-4, weight_decay=0.0, fused=True),
        scaler=None,
        plan=Plan(random_rows(8 * BATCH), job.recipe),
        device=device,
        ranks=ranks_from_environment(),
    )


def random_rows(count: int) -> list[Any]:
    import numpy as np

    from elias_trainer.batches import UNTRAINED, Document, Packed

    source = np.random.default_rng(0)
    rows = []
    for number in range(count):
        input_ids = source.integers(10, 32000, size=LENGTH, dtype=np.int32)
        labels = input_ids.copy()
        labels[:1] = UNTRAINED
        document = Document(example=str(number), input_ids=input_ids, labels=labels, weight=1.0)
        rows.append(Packed(documents=(document,)))
    return rows


def spare_tokenizer() -> Any:
    """TRL wants one; it is never asked to tokenize."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel(vocab={"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")


if __name__ == "__main__":
    main()
