"""Both built-in engines keep the shipped contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.engines.llamacpp import LlamaCpp
from elias.adapters.engines.reference import Reference
from elias.errors import DigestMismatch
from elias.ports.inference import Endpoint, EngineContext, ModelToServe
from elias.testing.engine_contract import EngineContract, call
from elias_trainer.contract import BaseModel, Digest, digest_file, starter_gguf


class TestLlamaCpp(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tmp_path_factory: pytest.TempPathFactory) -> LlamaCpp:
        return LlamaCpp(EngineContext(home=tmp_path_factory.mktemp("llamacpp"), threads=1))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelToServe:
        base = BaseModel(reference="starter", digest=digest_file(starter_gguf()))
        return ModelToServe(base=base, adapter=None, name="starter")

    def test_other_bytes_than_the_adapter_was_made_for_are_refused(self, engine: LlamaCpp, tmp_path: Path) -> None:
        other = BaseModel(reference="starter", digest=Digest("sha256:" + "0" * 64))
        with pytest.raises(DigestMismatch, match="SmolLM2"):
            engine.start(ModelToServe(base=other, adapter=None, name="starter"), tmp_path / "log")

    def test_tiny_has_no_gguf_and_the_reason_says_so(self, engine: LlamaCpp) -> None:
        reason = engine.can_serve(ModelToServe(base=BaseModel(reference="tiny"), adapter=None, name="tiny"))
        assert reason == "there is no GGUF file of the base 'tiny' here"


class TestReference(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tmp_path_factory: pytest.TempPathFactory) -> Reference:
        return Reference(EngineContext(home=tmp_path_factory.mktemp("reference"), threads=1))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelToServe:
        return ModelToServe(base=BaseModel(reference="tiny"), adapter=None, name="tiny")

    def test_an_answer_ends_before_its_stop_text(self, endpoint: Endpoint) -> None:

        ask: dict[str, Any] = {"prompt": "abc", "max_tokens": 24, "temperature": 0}
        whole = json.loads(call(endpoint, "POST", "/v1/completions", ask)[1])["choices"][0]["text"]
        stop = whole[2:4]
        answer = json.loads(call(endpoint, "POST", "/v1/completions", {**ask, "stop": stop})[1])["choices"][0]
        assert answer["text"] == whole[: whole.index(stop)]
        assert answer["finish_reason"] == "stop"
