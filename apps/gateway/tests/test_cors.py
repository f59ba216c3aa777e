"""Pages of other origins: preflights, answers, errors and sockets on a real node."""

from __future__ import annotations

import httpx
import pytest
from opened_node import OpenNode, OpenNodes
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from sennit.cors import checked_origin
from sennit_core.errors import UsageError

APP = "https://app.example"
PATHS = (
    "/api/query",
    "/api/upload",
    "/files/a/b/c",
    "/a.json",
    "/db/a.json",
    "/.settings/rules.json",
)


@pytest.fixture(scope="module")
def node(opened: OpenNodes) -> OpenNode:
    return opened({"network.allowed_origins": [APP, "http://localhost:3000"]})


def preflight(node: OpenNode, path: str, origin: str) -> httpx.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-sha256",
    }
    return httpx.options(f"{node.url}{path}", headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_of_an_allowed_page_needs_no_token(node: OpenNode, path: str) -> None:
    answer = preflight(node, path, APP)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "x-sha256" in answer.headers["access-control-allow-headers"]
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{APP}.evil.example", "*"])
@pytest.mark.parametrize("path", PATHS[:4])
def test_a_preflight_of_another_page_is_refused(node: OpenNode, path: str, origin: str) -> None:
    answer = preflight(node, path, origin)
    assert answer.status_code == 403
    assert "allowed_origins" in answer.text or path.endswith(".json")
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_for_another_host_is_refused(node: OpenNode) -> None:
    headers = {"origin": APP, "access-control-request-method": "GET", "host": "evil.example"}
    assert httpx.options(f"{node.url}/api/stats", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/stats", 200),
        ("GET", "/files/a/b/c", 404),
        ("PUT", "/a.json", 200),
        ("PUT", "/a.json?ns=none", 404),
        ("GET", "/api/nowhere", 404),
        ("POST", "/api/query", 422),
        ("POST", "/api/tokens/", 307),
    ],
)
def test_an_allowed_page_reads_answers_and_errors(
    node: OpenNode, method: str, path: str, status: int
) -> None:
    answer = node.client.request(method, path, headers={"origin": APP}, content="1")
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == APP
    assert {"Sennit-Engine", "ETag", "Content-Range"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )
    assert "Origin" in answer.headers.get("vary", "")


def test_pages_resume_uploads_of_tus(node: OpenNode) -> None:
    wanted = {"origin": APP, "access-control-request-method": "PATCH"}
    preflight = httpx.options(f"{node.url}/tus/01h00000000000000000000000", headers=wanted)
    answer = node.client.head("/tus/x", headers={"origin": APP, "tus-resumable": "1.0.0"})

    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert answer.status_code == 404
    assert {"Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )


@pytest.mark.parametrize("token", [None, "wrong"])
def test_an_allowed_page_learns_that_it_is_not_signed_in(node: OpenNode, token: str | None) -> None:
    headers = {"origin": APP} | ({"authorization": f"Bearer {token}"} if token else {})
    answer = httpx.get(f"{node.url}/api/stats", headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, APP)


def test_another_page_reads_nothing(node: OpenNode, plain: OpenNode) -> None:
    for each in (node, plain):
        answer = each.client.get("/api/stats", headers={"origin": "https://evil.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_answer_to_no_page_varies_too(node: OpenNode) -> None:
    assert "Origin" in node.client.get("/api/stats").headers["vary"]


def test_without_origins_no_preflight_passes(plain: OpenNode) -> None:
    assert preflight(plain, "/api/query", APP).status_code == 403


@pytest.mark.parametrize(("origin", "opens"), [(APP, True), ("https://evil.example", False)])
def test_a_socket_opens_for_an_allowed_page_alone(node: OpenNode, origin: str, opens: bool) -> None:
    headers = {"authorization": node.client.headers["authorization"]}
    address = node.url.replace("http", "ws", 1) + "/.ws?v=5"
    try:
        with connect(address, origin=Origin(origin), additional_headers=headers):
            opened = True
    except InvalidStatus:
        opened = False
    assert opened == opens


@pytest.mark.parametrize("text", ["*", "", "null", "app.example", "https://", "https://a b"])
def test_an_invalid_origin_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="allowed_origins"):
        checked_origin(text)
