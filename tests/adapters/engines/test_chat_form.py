"""A GGUF base without a chat template is asked in the form that it was trained in, whichever engine serves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest

from elias.adapters.engines.gguf_header import read_header
from elias.adapters.engines.llamacpp import LlamaCpp
from elias.adapters.engines.reference import Reference
from elias.ports.inference import Endpoint, EngineContext, ModelToServe
from elias.testing.engine_contract import call
from elias_trainer.chat import render
from elias_trainer.contract import BaseModel, starter_gguf

TEMPLATE = "tokenizer.chat_template"
CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 2 + 2?\n\nSay it in words."},
    {"role": "assistant", "content": "four"},
    {"role": "user", "content": "```python\ndef f(x):\n    return x\n```"},
]


def without_template(target: Path, **changed: bool) -> Path:
    """The starter, its weights as they are, without its chat template."""
    reader = gguf.GGUFReader(starter_gguf())
    writer = gguf.GGUFWriter(target, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in (TEMPLATE, "general.architecture"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = changed.get(key.rpartition(".")[2], field.contents())
        writer.add_key_value(key, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> ModelToServe:
    path = without_template(tmp_path_factory.mktemp("bare") / "bare.gguf")
    return ModelToServe(base=BaseModel(reference=str(path)), adapter=None, name="bare")


@pytest.fixture(scope="module", params=[LlamaCpp, Reference])
def endpoint(
    request: pytest.FixtureRequest, bare: ModelToServe, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    home = tmp_path_factory.mktemp("engine")
    engine = request.param(EngineContext(home=home, threads=1))
    endpoint = engine.start(bare, home / "log")
    yield endpoint
    engine.stop(endpoint)


@pytest.fixture(scope="module")
def tokenizer(bare: ModelToServe) -> Any:
    from transformers import AutoTokenizer

    path = Path(bare.base.reference)
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def test_the_file_has_no_template_of_its_own(bare: ModelToServe, tokenizer: Any) -> None:
    assert not read_header(Path(bare.base.reference)).has_chat_template
    assert read_header(starter_gguf()).has_chat_template
    assert not tokenizer.chat_template


def test_each_engine_reads_as_many_tokens_as_training_put_there(endpoint: Endpoint, tokenizer: Any) -> None:
    for count in (2, 4):
        trained = tokenizer(render(CHAT[:count], tokenizer, where="here", prompting=True), add_special_tokens=False)
        ask = {"messages": CHAT[:count], "max_tokens": 1, "temperature": 0}
        answer = json.loads(call(endpoint, "POST", "/v1/chat/completions", ask)[1])
        assert answer["usage"]["prompt_tokens"] == len(trained["input_ids"])


def test_llamacpp_reads_the_very_tokens_of_training(bare: ModelToServe, tokenizer: Any, tmp_path: Path) -> None:
    engine = LlamaCpp(EngineContext(home=tmp_path, threads=1))
    endpoint = engine.start(bare, tmp_path / "log")
    try:
        wanted = render(CHAT, tokenizer, where="here", prompting=True)
        prompt = json.loads(call(endpoint, "POST", "/apply-template", {"messages": CHAT})[1])["prompt"]
        assert prompt == wanted and wanted.startswith("### System:\nBe short.\n\n### User:\n")
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        tokens = json.loads(call(endpoint, "POST", "/tokenize", asked)[1])["tokens"]
    finally:
        engine.stop(endpoint)
    assert tokens == tokenizer(wanted, add_special_tokens=False)["input_ids"]


def test_where_llamacpp_would_put_a_token_before_the_prompt_it_declines_and_says_why(tmp_path: Path) -> None:
    path = without_template(tmp_path / "bos.gguf", add_bos_token=True)
    model = ModelToServe(base=BaseModel(reference=str(path)), adapter=None, name="bos")
    engine = LlamaCpp(EngineContext(home=tmp_path, threads=1))
    assert "bos.gguf has no chat template and asks for a token" in str(engine.can_serve(model))
