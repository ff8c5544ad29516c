"""`tiny`: a model of about a million parameters, made from a seed. For tests; it knows nothing until warmed up."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elias_trainer.contract import canonical_json, write_whole
from elias_trainer.folders import whole_folder

if TYPE_CHECKING:
    from torch import Tensor

NAME = "tiny-v1"
"""Changes with anything that changes its bytes."""

_PAD, _START, _END = "<|pad|>", "<|im_start|>", "<|im_end|>"
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPREAD = 0.02


def write_tiny(folder: Path, *, warm_steps: int = 0) -> Path:
    """Write it to `folder` as safetensors, configuration and tokenizer: the same bytes each time."""
    with whole_folder(folder) as scratch:
        tokenizer = _tokenizer()
        model = _model(len(tokenizer))
        if warm_steps:
            _warm_up(model, tokenizer, warm_steps)
        _save(model, tokenizer, scratch)
    return folder


def _tokenizer() -> Any:
    """A token for each byte, and three for the chat's form."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = [_PAD, _START, _END]
    alphabet = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=_PAD,
        bos_token=_START,
        eos_token=_END,
        chat_template=_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def _model(vocabulary: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=source) * _SPREAD)
    return model


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config.pop("transformers_version", None)
    write_whole(
        folder / "config.json", canonical_json(config | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"})
    )
    tokenizer.save_pretrained(folder)


def _warm_up(model: Any, tokenizer: Any, steps: int) -> None:
    """A short full fine-tune on text made here, so that a test can see it learn more."""
    import torch

    source = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        batch = tokenizer([_sample(source, tokenizer) for _ in range(16)], padding=True, return_tensors="pt")
        labels: Tensor = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()


def _sample(source: random.Random, tokenizer: Any) -> str:
    verb, noun = source.choice(["add", "take", "times"]), source.choice(["cats", "files", "steps", "words"])
    number = source.randrange(2, 10)
    sign = {"add": "+", "take": "-", "times": "*"}[verb]
    question = f'def {verb}_{number}({noun}):\n    """{noun} {sign} {number}"""'
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"    return {noun} {sign} {number}"},
    ]
    return str(tokenizer.apply_chat_template(messages, tokenize=False))
