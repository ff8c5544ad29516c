"""llama.cpp with a converted adapter says what transformers with PEFT says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from elias.adapters.engines import gguf_lora as converter
from elias.adapters.engines.gguf_header import read_header
from elias.adapters.engines.llamacpp import LlamaCpp
from elias.errors import BadStructure, InputError
from elias.ports.inference import EngineContext, ModelToServe
from elias_trainer.contract import BaseModel

TOLERANCE = 0.02
"""Nats, between log-probabilities of two programs; llama.cpp keeps keys and values in float16."""


def test_an_adapter_on_llama_cpp_gives_the_log_probabilities_of_peft(small_model: Any, tmp_path: Path) -> None:
    assert farthest(small_model, small_model.adapter, small_model.adapted_logits, tmp_path) < TOLERANCE


def test_the_bare_base_gives_the_log_probabilities_of_transformers(small_model: Any, tmp_path: Path) -> None:
    assert farthest(small_model, None, small_model.base_logits, tmp_path) < TOLERANCE


def test_the_adapter_changes_what_the_model_says(small_model: Any, tmp_path: Path) -> None:
    assert farthest(small_model, small_model.adapter, small_model.base_logits, tmp_path) > 50 * TOLERANCE


def test_without_the_permutation_of_query_and_key_rows_the_answers_differ(
    small_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_model.architecture != "llama":
        pytest.skip("only Llama's rows are permuted")
    monkeypatch.setattr(converter, "permute_rotary", lambda rows, heads: rows)
    assert farthest(small_model, small_model.adapter, small_model.adapted_logits, tmp_path) > 50 * TOLERANCE


def test_converting_twice_gives_the_same_file_and_the_same_bytes(small_model: Any, tmp_path: Path) -> None:
    header = read_header(small_model.gguf)
    first = converter.gguf_lora(small_model.adapter, header, tmp_path / "a")
    again = converter.gguf_lora(small_model.adapter, header, tmp_path / "a")
    elsewhere = converter.gguf_lora(small_model.adapter, header, tmp_path / "b")
    assert first == again and first.name == elsewhere.name
    assert first.read_bytes() == elsewhere.read_bytes()
    assert [path.name for path in (tmp_path / "a").iterdir()] == [first.name]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [("use_dora", True, "use_dora"), ("modules_to_save", ["lm_head"], "modules_to_save"), ("peft_type", "IA3", "IA3")],
)
def test_an_adapter_that_llama_cpp_has_no_counterpart_for_is_refused_with_the_option(
    small_model: Any, tmp_path: Path, option: str, value: object, named: str
) -> None:
    adapter = shutil.copytree(small_model.adapter, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, option: value}))
    assert named in str(converter.cannot_convert(adapter, read_header(small_model.gguf)))


def test_a_cut_off_adapter_is_refused_naming_the_file_and_leaves_nothing(small_model: Any, tmp_path: Path) -> None:
    adapter = shutil.copytree(small_model.adapter, tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(BadStructure, match=r"adapter_model\.safetensors"):
        converter.gguf_lora(adapter, read_header(small_model.gguf), tmp_path / "lora")
    assert list((tmp_path / "lora").iterdir()) == []


def test_a_file_that_is_no_gguf_model_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(InputError, match=r"broken\.gguf is not a whole GGUF model"):
        read_header(broken)


def farthest(model: Any, adapter: Path | None, logits: Any, home: Path) -> float:
    """The largest distance between the two log-probabilities of a token, over the whole vocabulary.

    The bias, which those leave out, makes the answer a whole character: the server reports none for half a one.
    """
    engine = LlamaCpp(EngineContext(home=home / "engine", threads=1))
    to_serve = ModelToServe(base=BaseModel(reference=str(model.gguf)), adapter=adapter, name="small")
    endpoint = engine.start(to_serve, home / "engine.log")
    try:
        question = {"prompt": model.prompt, "n_predict": 1, "n_probs": len(logits), "logit_bias": [[3 + ord("C"), 99]]}
        key = {"Authorization": f"Bearer {endpoint.api_key}"}
        answer = httpx.post(f"{endpoint.url}/completion", json=question, headers=key, timeout=300).json()
    finally:
        engine.stop(endpoint)
    assert "completion_probabilities" in answer, answer
    found = {item["id"]: item["logprob"] for item in answer["completion_probabilities"][0]["top_logprobs"]}
    wanted = logits.log_softmax(-1)
    assert len(found) == len(logits)
    return max(abs(found[token] - wanted[token].item()) for token in found)
