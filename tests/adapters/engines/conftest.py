"""Small random models, as transformers knows them and as GGUF, with LoRA adapters that change what they say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VOCABULARY = 259
"""Three control tokens and one for each byte."""


@dataclass(frozen=True, kw_only=True)
class SmallModel:
    architecture: str
    gguf: Path
    adapter: Path
    base_logits: Any
    adapted_logits: Any
    """Of the token after `prompt`, by transformers and PEFT."""
    prompt: list[int]


@pytest.fixture(scope="session", params=["llama", "qwen2", "qwen3"])
def small_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp(request.param)
    model = _random_model(request.param)
    _write_gguf(folder / "base.gguf", request.param, model)
    prompt = [1, 70, 104, 111, 111, 114, 35, 122, 114, 117, 111, 103]
    tokens = torch.tensor([prompt])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers by a name that it has retired
        base_logits = model(tokens).logits[0, -1].clone()
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules=targets))
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
        adapted_logits = adapted.eval()(tokens).logits[0, -1].clone()
    adapted.save_pretrained(folder / "adapter")
    return SmallModel(
        architecture=request.param,
        gguf=folder / "base.gguf",
        adapter=folder / "adapter",
        base_logits=base_logits,
        adapted_logits=adapted_logits,
        prompt=prompt,
    )


def _random_model(architecture: str) -> Any:
    import transformers

    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }
    config_kind, model_kind = kinds[architecture]
    config = config_kind(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
    )
    return model_kind(config).eval()


def _write_gguf(path: Path, architecture: str, model: Any) -> None:
    import gguf

    from elias.adapters.engines.gguf_lora import permute_rotary

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        module, _, part = name.rpartition(".")
        data = weight.float().numpy()
        projection = module.rsplit(".", 1)[-1]
        if architecture == "llama" and projection in heads:
            data = permute_rotary(data, heads[projection])
        writer.add_tensor(f"{names.get_name(module)}.{part}", data.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
