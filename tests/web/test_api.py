"""The node's own API, its page, and the door in front of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx
import pytest

from elias.testing.echo_engine import EchoEngine
from elias.testing.waiting import PATIENCE_S

from .conftest import TOKEN

KEY = {"Authorization": f"Bearer {TOKEN}"}
get, post = (partial(ask, timeout=PATIENCE_S) for ask in (httpx.get, httpx.post))


def test_status_says_what_is_in_service(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo)
    status = get(f"{website.url}/api/status").json()
    assert status["in_service"]["model"] == "small"
    assert status["in_service"]["answers"] is True
    assert status["runs"] == []
    assert status["notes"] == ["nothing was deployed yet: the base small serves"]


@pytest.mark.parametrize("path", ["/api/runs", "/api/models"])
def test_an_empty_node_has_empty_lists(open_website: Any, echo: EchoEngine, path: str) -> None:
    assert get(open_website(echo).url + path).json() == []


def test_a_run_that_is_not_there_is_404_with_a_fix(open_website: Any, echo: EchoEngine) -> None:
    answer = get(f"{open_website(echo).url}/api/runs/none")
    assert answer.status_code == 404
    assert answer.json()["error"] == "NotFound" and answer.json()["fix"]


@pytest.mark.parametrize("path", ["/api/deploy", "/api/rollback", "/api/down"])
def test_what_changes_the_node_needs_its_key(open_website: Any, echo: EchoEngine, path: str) -> None:
    website = open_website(echo)
    assert post(website.url + path, json={}).status_code == 401
    assert post(website.url + path, json={}, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert not website.stopped.is_set()
    assert len(website.service.history()) == 1


def test_deploy_and_rollback_with_the_key(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo)
    deployed = post(f"{website.url}/api/deploy", json={"base": "other"}, headers=KEY)
    assert deployed.status_code == 200
    assert (deployed.json()["base"], deployed.json()["why"]) == ("other", "deploy")
    back = post(f"{website.url}/api/rollback", headers=KEY)
    assert (back.json()["base"], back.json()["why"]) == ("small", "rollback")


def test_nothing_to_roll_back_to_is_a_refusal(open_website: Any, echo: EchoEngine) -> None:
    answer = post(f"{open_website(echo).url}/api/rollback", headers=KEY)
    assert answer.status_code == 409
    assert answer.json()["error"] == "Refused" and answer.json()["kept"] == "the model in service stays"


@pytest.mark.parametrize("body", [b'{"artefact": "latest"}', b'{"force": "perhaps"}', b"nonsense", b" " * 70_000])
def test_a_deploy_that_cannot_be_read_is_refused(open_website: Any, echo: EchoEngine, body: bytes) -> None:
    website = open_website(echo)
    answer = post(f"{website.url}/api/deploy", content=body, headers=KEY)
    assert answer.status_code == 400
    assert answer.json()["error"] == "InputError" and answer.json()["fix"]
    assert len(website.service.history()) == 1


def test_down_asks_the_node_to_end(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo)
    assert post(f"{website.url}/api/down", headers=KEY).json() == {"stopping": True}
    assert website.stopped.is_set()


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": ""}, {"Origin": "http://evil.example"}, {"Origin": "null"}],
    ids=["rebound name", "no name", "another page", "a page without a name"],
)
def test_web_pages_from_elsewhere_are_kept_out(open_website: Any, echo: EchoEngine, headers: dict[str, str]) -> None:
    website = open_website(echo)
    for path in ("/", "/api/status", "/v1/models"):
        answer = get(website.url + path, headers={**KEY, **headers})
        assert answer.status_code == 403, path
        assert "access-control-allow-origin" not in answer.headers


def test_on_an_address_that_others_reach_everything_needs_the_key(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo, is_local=False)
    question = {"messages": [{"role": "user", "content": "hi"}]}
    assert get(f"{website.url}/api/status").status_code == 401
    assert post(f"{website.url}/v1/chat/completions", json=question).status_code == 401
    assert post(f"{website.url}/v1/chat/completions", json=question, headers=KEY).status_code == 200
    assert get(f"{website.url}/", headers={"Host": "node.lan"}).status_code == 200


def test_the_page_loads_nothing_from_elsewhere(open_website: Any, echo: EchoEngine) -> None:
    page = get(f"{open_website(echo).url}/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text.replace("http://127.0.0.1", "") and "https://" not in page.text


def test_an_unknown_address_is_not_found_in_openais_form(open_website: Any, echo: EchoEngine) -> None:
    website = open_website(echo)
    assert get(f"{website.url}/v1/embeddings").json()["error"]["type"] == "invalid_request_error"
    assert get(f"{website.url}/v1/chat/completions").status_code == 404
