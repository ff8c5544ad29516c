"""What every inference engine must do. Subclass it in a test module and give the fixtures `engine` and `model`.

class TestMyEngine(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, tmp_path_factory): return MyEngine(EngineContext(home=..., threads=1))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls): return ModelToServe(base=BaseModel(reference="..."), adapter=None, name="mine")
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from elias.errors import EngineError
from elias.ports.inference import Endpoint, InferenceEngine, ModelToServe
from elias.testing.waiting import PATIENCE_S, wait_until
from elias_trainer.contract import BaseModel

QUESTION = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 6, "temperature": 0}


class EngineContract:
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> InferenceEngine:
        raise NotImplementedError("give your engine")

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> ModelToServe:
        raise NotImplementedError("give a model that it can serve")

    @pytest.fixture(scope="class")
    @classmethod
    def endpoint(
        cls, engine: InferenceEngine, model: ModelToServe, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Endpoint]:
        started = engine.start(model, tmp_path_factory.mktemp("logs") / "engine.log")
        yield started
        engine.stop(started)

    def test_it_can_serve_its_model(self, engine: InferenceEngine, model: ModelToServe) -> None:
        assert engine.can_serve(model) is None

    def test_it_is_healthy_when_start_returns(self, engine: InferenceEngine, endpoint: Endpoint) -> None:
        assert engine.is_alive(endpoint)
        assert call(endpoint, "GET", "/health", key=None)[0] == 200

    def test_it_listens_on_loopback_only(self, endpoint: Endpoint) -> None:
        assert urlsplit(endpoint.url).hostname in ("127.0.0.1", "::1")

    def test_it_answers_a_chat(self, endpoint: Endpoint) -> None:
        status, body = call(endpoint, "POST", "/v1/chat/completions", QUESTION)
        answer = json.loads(body)
        assert status == 200, answer
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens"] <= 6

    def test_it_completes_a_text(self, endpoint: Endpoint) -> None:
        status, body = call(endpoint, "POST", "/v1/completions", {"prompt": "def add(a, b):", "max_tokens": 6})
        assert status == 200, body
        assert isinstance(json.loads(body)["choices"][0]["text"], str)

    def test_a_streamed_answer_is_the_whole_answer_in_pieces(self, endpoint: Endpoint) -> None:
        _, body = call(endpoint, "POST", "/v1/chat/completions", QUESTION)
        whole = json.loads(body)["choices"][0]["message"]["content"]
        status, streamed = call(endpoint, "POST", "/v1/chat/completions", {**QUESTION, "stream": True})
        lines = [line.removeprefix("data: ") for line in streamed.decode().splitlines() if line.startswith("data: ")]
        choices = [choice for line in lines[:-1] for choice in json.loads(line)["choices"]]
        assert status == 200
        assert lines[-1] == "[DONE]"
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == whole
        assert choices[-1]["finish_reason"] in ("stop", "length")

    def test_nobody_is_answered_without_the_key(self, endpoint: Endpoint) -> None:
        assert call(endpoint, "POST", "/v1/chat/completions", QUESTION, key=None)[0] == 401
        assert call(endpoint, "POST", "/v1/chat/completions", QUESTION, key="wrong")[0] == 401

    def test_a_web_page_is_not_let_in(self, endpoint: Endpoint) -> None:
        connection = _connect(endpoint)
        connection.request("GET", "/v1/models", headers={"Origin": "http://evil.example"})
        allowed = connection.getresponse().getheader("Access-Control-Allow-Origin")
        connection.close()
        assert allowed not in ("*", "http://evil.example")

    def test_a_bad_request_is_refused_and_the_next_one_answered(self, endpoint: Endpoint) -> None:
        status, body = call(endpoint, "POST", "/v1/chat/completions", {"messages": "hello"})
        assert 400 <= status < 600 and "error" in json.loads(body)
        assert call(endpoint, "POST", "/v1/chat/completions", QUESTION)[0] == 200

    def test_its_key_is_not_on_its_command_line(self, endpoint: Endpoint) -> None:
        command = Path(f"/proc/{endpoint.process}/cmdline")
        if not command.exists():
            pytest.skip("this system shows no command lines in /proc")
        assert endpoint.api_key.encode() not in command.read_bytes()

    def test_a_base_that_is_not_there_is_refused_with_a_reason(self, engine: InferenceEngine, tmp_path: Path) -> None:
        missing = ModelToServe(base=BaseModel(reference=str(tmp_path / "none.gguf")), adapter=None, name="none")
        assert engine.can_serve(missing)
        with pytest.raises(EngineError):
            engine.start(missing, tmp_path / "engine.log")

    def test_two_run_side_by_side_and_stopping_one_leaves_the_other(
        self, engine: InferenceEngine, model: ModelToServe, endpoint: Endpoint, tmp_path: Path
    ) -> None:
        second = engine.start(model, tmp_path / "engine.log")
        assert second.url != endpoint.url and second.api_key != endpoint.api_key
        engine.stop(second)
        engine.stop(second)
        assert not engine.is_alive(second)
        assert not is_running(second.process)
        assert engine.is_alive(endpoint)

    def test_a_killed_one_is_seen_to_be_dead(
        self, engine: InferenceEngine, model: ModelToServe, tmp_path: Path
    ) -> None:
        victim = engine.start(model, tmp_path / "engine.log")
        os.kill(victim.process, signal.SIGKILL)
        wait_until(lambda: not engine.is_alive(victim))
        engine.stop(victim)

    def test_it_ends_when_the_process_that_started_it_is_killed(
        self, engine: InferenceEngine, model: ModelToServe, tmp_path: Path
    ) -> None:
        import pickle

        (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
        program = textwrap.dedent(f"""
            import pathlib, pickle, sys, time
            from importlib import import_module
            from elias.ports.inference import EngineContext
            kind = getattr(import_module({type(engine).__module__!r}), {type(engine).__name__!r})
            folder = pathlib.Path({str(tmp_path)!r})
            model = pickle.loads((folder / "model.pickle").read_bytes())
            engine = kind(EngineContext(home=folder / "home", threads=1))
            print(engine.start(model, folder / "engine.log").process, flush=True)
            time.sleep(600)
        """)
        parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: not is_running(child))


def call(endpoint: Endpoint, method: str, path: str, body: Any = None, *, key: str | None = "") -> tuple[int, bytes]:
    """Status and body; with the endpoint's own key unless another, or None, is given."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key or endpoint.api_key}"
    connection = _connect(endpoint)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def is_running(process: int) -> bool:
    """False also for one that has ended and only waits to be reaped."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # it ended between two looks
        return False


def _connect(endpoint: Endpoint) -> http.client.HTTPConnection:
    address = urlsplit(endpoint.url)
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE_S)
