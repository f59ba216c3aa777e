"""Requests that no client of ours would send; the node answers each, and keeps working."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from elkyn.server.http.protocol import HEAD_BYTES_MAX
from nodes import RunningNode


@pytest.mark.parametrize(
    "question",
    [
        {"sql": "select ?", "params": [1 << 70]},
        {"sql": "select ?", "params": ["\ud800"]},
        {"sql": "select 1", "maxRows": 10**23},
        {"sql": "select 1", "deadlineSeconds": 1e300},
        {"sql": "select 1", "engine": "\ud800"},
    ],
)
def test_a_question_with_an_impossible_member_is_refused(
    node: RunningNode, question: dict[str, Any]
) -> None:
    body = json.dumps(question)
    headers = node.headers | {"content-type": "application/json"}
    refused = httpx.post(f"{node.url}/api/query", content=body, headers=headers)
    assert refused.status_code in {400, 422}, refused.text
    assert {"error", "code", "hint"} <= refused.json().keys()
    assert node.session().sql("select 42").to_arrow().to_pylist() == [{"42": 42}]


def test_half_a_surrogate_pair_can_be_quoted_in_an_error(node: RunningNode) -> None:
    plan = {"v": 1, "op": "scan", "source": {"dataset": "x"}}
    refused = httpx.post(
        f"{node.url}/api/jobs",
        content=json.dumps({"plan": plan, "engine": "\ud800"}),
        headers=node.headers,
    )
    assert refused.status_code == 400


def test_an_unauthenticated_client_cannot_fill_the_gateways_memory(node: RunningNode) -> None:
    refused = httpx.post(f"{node.url}/api/session", content=b"x" * (8 << 20))
    assert refused.status_code == 413
    assert refused.json()["code"] == "too-large"


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_an_end_is_refused(node: RunningNode, start: bytes) -> None:
    address = urlsplit(node.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        filler = b"a:a\r\n" * 20_000 if start.endswith(b"\n") else b"x" * 100_000
        client.sendall((start + filler)[: HEAD_BYTES_MAX + 1])
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too-large"


def test_a_route_that_is_not_there_is_named(node: RunningNode) -> None:
    answer = httpx.get(f"{node.url}/api/nothing", headers=node.headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert "GET /api/nothing" in answer.json()["error"]


def test_an_unauthenticated_client_gets_an_error_that_names_the_fix(node: RunningNode) -> None:
    assert httpx.get(f"{node.url}/api/stats").json()["error"] == "not signed in: this needs a token"


@pytest.mark.nightly
def test_requests_that_wait_keep_no_other_from_its_answer(own_node: RunningNode) -> None:
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(ask_for_long, own_node) for _ in range(60)]
        try:
            wait_until(lambda: waiting(own_node) > 50)
            assert httpx.get(f"{own_node.url}/healthz").status_code == 200
            assert not any(answer.done() for answer in answers)
        finally:
            own_node.kill()


def ask_for_long(node: RunningNode) -> None:
    sql = "select sum(a.range * b.range) from range(1000000) a, range(1000000) b"
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(f"{node.url}/api/query", json={"sql": sql}, headers=node.headers, timeout=60)


def waiting(node: RunningNode) -> int:
    stats = httpx.get(f"{node.url}/api/stats", headers=node.headers).json()
    return int(stats["waiting"])


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


def raw(node: RunningNode, head: bytes) -> bytes:
    """Send a request as it is; return the status line and the body of the answer."""
    address = urlsplit(node.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(head.replace(b"TOKEN", node.token.encode()))
        answer = b""
        while part := client.recv(4096):
            answer += part
    return answer


HOST = b"Host: 127.0.0.1\r\n"
SIGNED_IN = b"Authorization: Bearer TOKEN\r\n"
END = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/stats HTTP/1.1\r\n" + HOST + HOST + SIGNED_IN,
        b"GET /api/stats HTTP/1.1\r\n" + HOST + b"host: evil.example\r\n" + SIGNED_IN,
        b"GET /api/stats HTTP/1.1\r\n" + SIGNED_IN,
        b"GET /api/stats HTTP/1.1\r\n" + HOST + SIGNED_IN + SIGNED_IN,
        b"GET /api/stats HTTP/1.1\r\n" + HOST + b"Cookie: a=b\r\n" + b"Cookie: c=d\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Origin: null\r\nOrigin: http://127.0.0.1\r\n",
        b"POST /api/session HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n",
        b"GET /.ws?v=5 HTTP/1.1\r\n" + HOST + HOST + b"Upgrade: websocket\r\n",
        b"GET evil.example:80 HTTP/1.1\r\n" + HOST,
    ],
)
def test_a_head_with_two_meanings_is_refused(node: RunningNode, head: bytes) -> None:
    assert raw(node, head + END).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET http://evil.example/healthz HTTP/1.1\r\n" + HOST, b"403"),
        (b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: evil.example\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8600@evil.example\r\n", b"403"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:99999\r\n", b"403"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:1\r\n", b"200"),
    ],
)
def test_the_host_that_counts_is_the_one_of_the_target(
    node: RunningNode, head: bytes, status: bytes
) -> None:
    assert raw(node, head + END).startswith(b"HTTP/1.1 " + status)


def test_requests_behind_a_refused_one_are_not_answered(node: RunningNode) -> None:
    refused = b"GET /healthz HTTP/1.1\r\n" + HOST + HOST + b"\r\n"
    smuggled = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    assert raw(node, refused + smuggled).count(b"HTTP/1.1 ") == 1
