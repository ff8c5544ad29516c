"""The whole of it with llama.cpp: a blue/green change, a rollback and a killed engine, under load, none of it felt."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy
import openai
import pytest
from safetensors.numpy import save_file

from elias.adapters.engines.llamacpp import LlamaCpp
from elias.domain.artifact import Artifact
from elias.domain.label import Label
from elias.ports.inference import EngineContext
from elias.services.deploy import DeployRequest
from elias.testing.engine_contract import is_running
from elias.testing.waiting import PATIENCE_S, wait_until
from elias.web.gateway import Limits
from elias_trainer.contract import Digest, Method, digest_bytes, digest_file, starter_gguf

ARTIFACT = digest_bytes(b"an adapter")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Of the starter: 576 wide, 30 blocks; strong enough to be heard."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    draw = numpy.random.default_rng(3)
    tensors = {}
    for block in range(30):
        name = f"base_model.model.model.layers.{block}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = draw.normal(0, 0.05, (2, 576)).astype("float32")
        tensors[f"{name}.lora_B.weight"] = draw.normal(0, 0.5, (576, 2)).astype("float32")
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    return folder


@pytest.fixture
def website(open_website: Any, adapter: Path, tmp_path: Path) -> Any:
    def verify(digest: Digest) -> Path:
        assert digest == ARTIFACT
        return adapter

    website = open_website(LlamaCpp(EngineContext(home=tmp_path / "cache", threads=1)), base="starter", verify=verify)
    made = Artifact(digest=ARTIFACT, run="r", base_reference="starter", base_digest=digest_file(starter_gguf()),
                    method=Method.LORA, corpus=ARTIFACT, label=Label.PUBLIC, created_at=datetime.now(UTC), bytes=1,
                    receipt=ARTIFACT)  # fmt: skip
    website.node.stores.models.add_artifact(made)
    return website


def test_no_answer_is_lost_over_a_deployment_and_a_rollback(website: Any) -> None:
    with asking(website.url, streams=(True, False, True)) as answers:
        wait_until(lambda: len(answers) > 3)
        website.service.deploy(DeployRequest(artifact=ARTIFACT, past_gate=True))
        now = len(answers)
        wait_until(lambda: len(answers) > now + 6)
        website.service.rollback()
        now = len(answers)
        wait_until(lambda: len(answers) > now + 6)
    assert [answer for answer in answers if not answer[1]] == []
    assert {model for model, _ in answers} == {"starter", f"starter+{ARTIFACT.short}"}


def test_the_adapter_is_heard_and_taken_back(website: Any) -> None:
    def answer() -> str:
        with openai.OpenAI(base_url=f"{website.url}/v1", api_key="any", max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
            found = client.chat.completions.create(model="elias", messages=messages, max_tokens=12, temperature=0)
        return str(found.choices[0].message.content)

    before = answer()
    website.service.deploy(DeployRequest(artifact=ARTIFACT, past_gate=True))
    during = answer()
    website.service.rollback()
    assert during != before
    assert answer() == before


def test_a_killed_engine_costs_no_answer_that_had_not_begun(website: Any) -> None:
    with asking(website.url, streams=(False, False, False)) as answers:
        for _ in range(2):
            now, victim = len(answers), website.service.route.current().endpoint.process
            wait_until(lambda now=now: len(answers) > now + 3)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda victim=victim: website.service.route.current().endpoint.process != victim)
            now = len(answers)
            wait_until(lambda now=now: len(answers) > now + 3)
    assert [answer for answer in answers if not answer[1]] == []
    assert website.node.keep_alive.restarts == 2


def test_an_engine_that_hangs_is_replaced_and_what_waited_in_it_is_answered(open_website: Any, tmp_path: Path) -> None:
    engine = LlamaCpp(EngineContext(home=tmp_path / "cache", threads=1))
    website = open_website(engine, base="starter")
    with asking(website.url, streams=(False, False)) as answers:
        wait_until(lambda: len(answers) > 2)
        victim = website.service.route.current().endpoint.process
        os.kill(victim, signal.SIGSTOP)
        website.allow_silence(timedelta(seconds=10))
        wait_until(lambda: website.service.route.current().endpoint.process != victim)
        website.allow_silence(timedelta(seconds=PATIENCE_S))
        now = len(answers)
        wait_until(lambda: len(answers) > now + 2)
    assert not is_running(victim), "the one that hung is gone"
    assert website.node.keep_alive.restarts == 1
    assert "answered nothing for 10 s" in website.service.notice


def test_where_no_engine_comes_back_a_request_gets_a_clear_503_and_no_silence(
    open_website: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LlamaCpp(EngineContext(home=tmp_path / "cache", threads=1))
    website = open_website(engine, base="starter", limits=Limits(wait_s=2.0))
    monkeypatch.setattr(engine, "can_serve", lambda model: "its file is gone")
    os.kill(website.service.route.current().endpoint.process, signal.SIGSTOP)
    website.allow_silence(timedelta(seconds=1))
    with (
        openai.OpenAI(base_url=f"{website.url}/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="no model is in service") as refused,
    ):
        client.completions.create(model="elias", prompt="hi", max_tokens=2)
    assert refused.value.status_code == 503


def test_closing_the_node_ends_its_engines(website: Any) -> None:
    website.service.deploy(DeployRequest(artifact=ARTIFACT, past_gate=True))
    processes = [running.endpoint.process for running in (website.service.route.current(), website.service.standby)]
    website.node.keep_alive.stop()
    website.service.close()
    wait_until(lambda: not any(is_running(process) for process in processes))


@contextmanager
def asking(url: str, streams: tuple[bool, ...]) -> Iterator[list[tuple[str, str]]]:
    """Clients that ask without a pause; (model, text) of each answer. An error of any one is raised at the end."""
    answers: list[tuple[str, str]] = []
    done = threading.Event()

    def ask_on(stream: bool) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
            while not done.is_set():
                messages: Any = [{"role": "user", "content": "Count to five."}]
                made: Any = client.chat.completions.create(
                    model="elias", messages=messages, max_tokens=8, stream=stream
                )
                pieces = list(made) if stream else [made]
                parts = [piece.choices[0].delta if stream else piece.choices[0].message for piece in pieces]
                answers.append((pieces[0].model, "".join(part.content or "" for part in parts)))

    with ThreadPoolExecutor(len(streams)) as pool:
        clients = [pool.submit(ask_on, stream) for stream in streams]
        try:
            yield answers
        finally:
            done.set()
    for client in clients:
        client.result()
