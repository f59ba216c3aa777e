"""Unauthenticated clients, other sites and log readers get nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from nodes import RunningNode

PATHS = (
    "/api/stats",
    "/api/datasets",
    "/api/jobs",
    "/jobs.json?ns=sys",
    "/.json",
    "/metrics",
    "/docs",
)


@pytest.mark.parametrize("path", PATHS)
def test_without_a_token_there_is_nothing_to_see(node: RunningNode, path: str) -> None:
    refused = httpx.get(f"{node.url}{path}")
    assert refused.status_code == 401
    assert "error" in refused.json()


@pytest.mark.parametrize("path", PATHS)
def test_another_name_for_this_machine_is_refused(node: RunningNode, path: str) -> None:
    headers = {**node.headers, "host": "rebound.example"}
    assert httpx.get(f"{node.url}{path}", headers=headers).status_code == 403


@pytest.fixture
def browser(node: RunningNode) -> Iterator[Any]:
    """A client that holds the cookie and no token, as a browser does."""
    with httpx.Client(base_url=node.url) as client:
        log_in(client, node)
        yield client


def log_in(client: httpx.Client, node: RunningNode) -> None:
    answer = client.post("/api/session", json={"token": node.token}, headers={"origin": node.url})
    assert answer.status_code == 200


def test_another_site_cannot_use_the_visitors_cookie(
    browser: httpx.Client, node: RunningNode
) -> None:
    query = {"sql": "select 1"}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        refused = browser.post("/api/query", json=query, headers={"origin": origin})
        assert refused.status_code == 403, origin
    assert browser.post("/api/query", json=query).status_code == 403
    allowed = browser.post("/api/query", json=query, headers={"origin": node.url})
    assert allowed.status_code == 200


def test_no_response_can_be_read_by_another_site(node: RunningNode) -> None:
    headers = {**node.headers, "origin": "https://evil.example"}
    assert (
        "access-control-allow-origin"
        not in httpx.get(f"{node.url}/api/stats", headers=headers).headers
    )


def test_a_wrong_token_opens_no_session(node: RunningNode) -> None:
    refused = httpx.post(f"{node.url}/api/session", json={"token": "snt_wrong"})
    assert refused.status_code == 401
    assert "set-cookie" not in refused.headers


def test_a_reader_reads_and_queries_but_changes_nothing(node: RunningNode) -> None:
    made = httpx.post(
        f"{node.url}/api/tokens", json={"name": "r", "role": "reader"}, headers=node.headers
    )
    headers = {"authorization": f"Bearer {made.json()['token']}"}
    assert httpx.get(f"{node.url}/api/datasets", headers=headers).status_code == 200
    answer = httpx.post(f"{node.url}/api/query", json={"sql": "select 1"}, headers=headers)
    assert answer.status_code == 200
    refused = httpx.post(
        f"{node.url}/api/start-upload", json={"name": "x", "size": 1}, headers=headers
    )
    assert refused.status_code == 403
    assert "writer" in refused.json()["hint"]
    assert httpx.put(f"{node.url}/a.json", json=1, headers=headers).status_code in {401, 403}


def test_tokens_stay_out_of_logs(node: RunningNode) -> None:
    httpx.get(f"{node.url}/?token={node.token}")
    httpx.get(f"{node.url}/api/stats", headers=node.headers)
    httpx.get(f"{node.url}/api/stats", headers={"authorization": "Bearer snt_stolen-and-wrong"})
    for log in (node.data / "logs").glob("*.log"):
        text = log.read_text()
        assert node.token not in text, log.name
        assert "snt_stolen" not in text, log.name


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/query", b"{"),
        ("POST", "/api/query", b"[]"),
        ("POST", "/api/query", b'{"sql": 5}'),
        ("POST", "/api/jobs", b'{"plan": "x"}'),
        ("POST", "/api/tokens", b'{"name": "", "role": "reader"}'),
        ("GET", "/api/nowhere", None),
        ("DELETE", "/api/stats", None),
    ],
)
def test_every_refusal_has_the_one_form(
    node: RunningNode, method: str, path: str, body: bytes | None
) -> None:
    headers = {**node.headers, "content-type": "application/json"}
    answer = httpx.request(method, f"{node.url}{path}", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
    assert {"error", "code", "hint"} <= set(answer.json())


def test_the_api_describes_itself(node: RunningNode) -> None:
    page = httpx.get(f"{node.url}/docs", headers=node.headers)
    assert "/api/query" in page.text
    document = httpx.get(f"{node.url}/api/openapi.json", headers=node.headers).json()
    assert "/api/uploads/{upload_id}/parts/{index}" in document["paths"] or any(
        "parts" in path for path in document["paths"]
    )
