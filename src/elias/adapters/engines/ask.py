"""One question to a running engine, and whether it hears one at all."""

from __future__ import annotations

import http.client
from contextlib import closing
from urllib.parse import urlsplit

import httpx

from elias.errors import EngineError
from elias.ports.inference import Endpoint

_ANSWER_WITHIN_S = 120.0


def ask(endpoint: Endpoint, prompt: str, *, max_tokens: int = 32) -> str:
    """The answer to one message, the likeliest token each time. Raises EngineError."""
    question = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0}
    key = {"Authorization": f"Bearer {endpoint.api_key}"}
    try:
        with httpx.Client(trust_env=False, timeout=_ANSWER_WITHIN_S) as client:
            answer = client.post(f"{endpoint.url}/v1/chat/completions", json=question, headers=key)
            answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        fix = "read the engine's log in the node's home, logs/"
        raise EngineError(f"the engine did not answer: {error}", fix=fix) from error


def answers(endpoint: Endpoint, within_s: float) -> bool:
    """Whether `/health` says anything, be it that it is busy. A client of a few lines: this is asked all day long."""
    address = urlsplit(endpoint.url)
    try:
        with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=within_s)) as connection:
            connection.request("GET", "/health")
            connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    return True
