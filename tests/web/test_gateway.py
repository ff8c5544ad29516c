"""The gateway: OpenAI's API as its own client speaks it, and what happens when things go wrong behind it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from elias.services.deploy import DeployRequest
from elias.testing.echo_engine import EchoEngine
from elias.testing.waiting import PATIENCE_S, wait_until
from elias.web.gateway import Limits

LONG = "word " * 20_000
"""With a pause before each word, an answer that lasts longer than anybody looks at it."""


def chat(website: Any, **more: Any) -> httpx.Response:
    question = {"messages": [{"role": "user", "content": "one two"}], **more}
    return httpx.post(f"{website.url}/v1/chat/completions", json=question, timeout=PATIENCE_S)


def test_the_official_client_gets_an_answer_whole_and_streamed(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo)
    with openai.OpenAI(base_url=f"{website.url}/v1", api_key="any", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "one two"}]
        whole = client.chat.completions.create(model="elias", messages=messages)
        pieces = client.chat.completions.create(model="elias", messages=messages, stream=True)
        streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        names = [model.id for model in client.models.list()]
    assert whole.choices[0].message.content == "small: one two"
    assert whole.model == "small"
    assert streamed.strip() == "small: one two"
    assert names == ["elias", "small"]


def test_the_answer_names_the_model_and_the_deployment_that_gave_it(open_website: Any, echo: EchoEngine) -> None:
    answer = chat(open_website(echo))
    assert answer.headers["x-elias-model"] == "small"
    assert answer.headers["x-elias-deployment"] == "1"


def test_a_model_that_is_not_in_service_is_not_found(open_website: Any, echo: EchoEngine) -> None:
    answer = chat(open_website(echo), model="gpt-4")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400), (b"[" * 100_000, 400), (b" " * 5000, 413)])
def test_a_bad_body_is_refused_in_openais_form(open_website: Any, echo: EchoEngine, body: bytes, status: int) -> None:
    limits = Limits(body_bytes=4096 if status == 413 else 1 << 20)
    website = open_website(echo, limits=limits)
    answer = httpx.post(f"{website.url}/v1/chat/completions", content=body, timeout=PATIENCE_S)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert chat(website).status_code == 200


def test_more_requests_than_may_wait_are_sent_away_and_told_when_to_return(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo, limits=Limits(at_once=1, waiting=1, wait_s=PATIENCE_S))
    echo.may_speak.clear()
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(chat, website) for _ in range(6)]
        wait_until(lambda: any(future.done() for future in asked))  # one too many; the first is not answered yet
        echo.may_speak.set()
        answers = [future.result() for future in asked]
    statuses = sorted(answer.status_code for answer in answers)
    busy = [answer for answer in answers if answer.status_code == 429]
    assert statuses[0] == 200 and 429 in statuses
    assert all(answer.headers["retry-after"] == "2" for answer in busy)
    assert chat(website).status_code == 200


def test_a_client_that_hangs_up_frees_the_engine_and_its_turn(open_website: Any, echo: EchoEngine) -> None:
    echo.pause_s = 0.02
    website = open_website(echo, limits=Limits(at_once=1, wait_s=PATIENCE_S))
    question = {"messages": [{"role": "user", "content": LONG}], "stream": True}
    url = f"{website.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=question, timeout=PATIENCE_S) as stream:
        next(stream.iter_lines())
    assert echo.hung_up.wait(PATIENCE_S)
    assert chat(website).status_code == 200


def test_a_question_is_asked_again_when_the_engine_dies_before_it_answers(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo)
    echo.may_speak.clear()
    first = website.service.route.current()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(chat, website) for _ in range(4)]
        wait_until(lambda: website.service.route.inside(first) == 4)
        echo.kill(first.endpoint)
        echo.may_speak.set()
        answers = [future.result() for future in asked]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert website.service.route.current() is not first


def test_a_question_that_its_engine_did_not_take_in_time_is_asked_again(
    open_website: Any, echo: EchoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    website = open_website(echo)
    send, refused = httpx.AsyncHTTPTransport.handle_async_request, []

    async def refuse_once(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if not refused:
            refused.append(request)
            raise httpx.ConnectTimeout("its queue is full", request=request)
        return await send(transport, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", refuse_once)
    assert chat(website).status_code == 200 and refused


def test_a_stream_whose_engine_dies_ends_with_an_error_the_client_sees(open_website: Any, echo: EchoEngine) -> None:
    echo.pause_s = 0.02
    website = open_website(echo)
    with openai.OpenAI(base_url=f"{website.url}/v1", api_key="any", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": LONG}]
        stream = client.chat.completions.create(model="elias", messages=messages, stream=True)
        next(stream)
        echo.kill(website.service.route.current().endpoint)
        with pytest.raises(openai.APIError, match="ended in the middle of its answer"):
            list(stream)


def test_while_nothing_serves_a_request_waits_and_then_is_told_to_come_back(
    open_website: Any, echo: EchoEngine
) -> None:
    website = open_website(echo, limits=Limits(wait_s=0.3))
    website.node.keep_alive.stop()
    echo.failing.add("small")
    echo.kill(website.service.route.current().endpoint)
    answer = chat(website)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "no_model"


def test_no_request_fails_while_models_change(open_website: Any, echo: EchoEngine) -> None:
    echo.pause_s = 0.005
    website = open_website(echo)
    done = threading.Event()
    answers: list[tuple[int, bool]] = []

    def ask_on(stream: bool) -> None:
        with httpx.Client(base_url=website.url, timeout=PATIENCE_S) as client:
            question = {"messages": [{"role": "user", "content": "one two three"}], "stream": stream}
            while not done.is_set():
                answer = client.post("/v1/chat/completions", json=question)
                answers.append((answer.status_code, "three" in answer.text))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_on, stream) for stream in (True, False, True, False)]
        for number in range(5):
            for change in (
                lambda name=f"small{number}": website.service.deploy(DeployRequest(artifact=None, base=name)),
                website.service.rollback,
            ):
                change()
                seen = len(answers)
                wait_until(lambda seen=seen: len(answers) > seen + 4)
        done.set()
        for future in asking:
            future.result()
    assert set(answers) == {(200, True)}
