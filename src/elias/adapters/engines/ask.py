"""One question to a running engine."""

from __future__ import annotations

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
