"""Static files, the login by URL, and the page shown while the playground is built."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from elkyn import ElkynStore
from sennit import playground
from sennit.auth import AccessControl, Tokens
from sennit.route_roles import RouteRoles
from sennit.routes.pages import Pages
from sennit.security_headers import SecurityHeaders


def ask(app: Any, path: str, query: str = "", method: str = "GET") -> Any:
    """One request without a server: status, headers, body."""
    sent = []
    scope = {
        "type": "http", "asgi": {"spec_version": "2.4"}, "method": method, "path": path, "query_string": query.encode(),
        "headers": [], "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    site = tmp_path / "out"
    (site / "sql").mkdir(parents=True)
    (site / "_next" / "static").mkdir(parents=True)
    (site / "index.html").write_text("<script>1</script>home")
    (site / "sql" / "index.html").write_text("sql")
    (site / "404.html").write_text("lost")
    (site / "_next" / "static" / "a.js").write_text("js")
    (site / "runtime").mkdir()
    for name in ("compute.js", "outer.js", "computed.js", "sandbox.html"):
        (site / "runtime" / name).write_text("js")
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setattr(playground, "site", lambda: site)
    monkeypatch.setattr(playground, "can_build", lambda: False)
    with ElkynStore(mode="memory") as tree:
        access = AccessControl.of(
            Tokens("snt_admin", tree),
            RouteRoles([]),
            host="127.0.0.1",
            port=8600,
            hosts=(),
            origins=(),
        )
        app = Pages(access)
        headers = SecurityHeaders(app)
        app.behind(headers)
        yield headers


def test_pages_are_served_isolated(pages: SecurityHeaders) -> None:
    status, headers, body = ask(pages, "/")
    assert (status, body) == (200, b"<script>1</script>home")
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert "sha256-" in headers["content-security-policy"]


def test_the_compute_worker_alone_may_evaluate_text(pages: SecurityHeaders) -> None:
    policies = {
        path: ask(pages, path)[1]["content-security-policy"]
        for path in ("/", "/sql/", "/_next/static/a.js", "/runtime/outer.js", "/runtime/computed.js",
                     "/runtime/compute.js/", "//runtime/compute.js", "/runtime/none.js")
    }  # fmt: skip
    assert [path for path, policy in policies.items() if "unsafe-eval" in policy] == []
    status, headers, _ = ask(pages, "/runtime/compute.js")
    assert status == 200
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self' 'unsafe-eval'; worker-src 'none'"
    )
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-cache", "nosniff")


def test_the_sandbox_alone_is_a_frame_and_has_an_origin_of_its_own(pages: SecurityHeaders) -> None:
    paths = ("/", "/sql/", "/runtime/outer.js", "/runtime/sandbox.html/", "//runtime/sandbox.html")
    for path in paths:
        headers = ask(pages, path)[1]
        assert headers["x-frame-options"] == "DENY"
        assert "'unsafe-inline'" not in headers["content-security-policy"].split("style-src")[0]
    status, headers, _ = ask(pages, "/runtime/sandbox.html")
    policy = headers["content-security-policy"].split("; ")
    assert (status, headers["x-frame-options"]) == (200, "SAMEORIGIN")
    assert {"sandbox allow-scripts", "default-src 'none'", "frame-ancestors 'self'"} <= set(policy)
    assert "allow-same-origin" not in headers["content-security-policy"]
    assert headers["cross-origin-embedder-policy"] == "require-corp"


def test_a_folder_is_its_index(pages: SecurityHeaders) -> None:
    assert ask(pages, "/sql/")[2] == b"sql"


def test_a_page_without_its_slash_is_redirected_to_it(pages: SecurityHeaders) -> None:
    status, headers, _ = ask(pages, "/sql", "q=1")
    assert (status, headers["location"]) == (308, "/sql/?q=1")
    assert ask(pages, "//sql", "")[1]["location"] == "/sql/"


@pytest.mark.slow
def test_hashed_files_are_cached_for_ever_and_pages_are_not(pages: SecurityHeaders) -> None:
    assert "immutable" in ask(pages, "/_next/static/a.js")[1]["cache-control"]
    assert ask(pages, "/")[1]["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/a\0b", "/" + "x" * 5000, "/" + "y/" * 3000, "/\udce4"])
def test_a_path_that_no_file_can_have_is_not_found(pages: SecurityHeaders, path: str) -> None:
    assert ask(pages, path)[0] == 404


@pytest.mark.parametrize(
    "path", ["/../secret", "/sql/../../secret", "//etc/passwd", "/%2e%2e/secret"]
)
def test_no_path_leaves_the_site(pages: SecurityHeaders, path: str) -> None:
    status, _, body = ask(pages, path)
    assert status == 404
    assert b"secret" not in body


def test_the_token_leaves_the_address_at_once(pages: SecurityHeaders) -> None:
    status, headers, _ = ask(pages, "/", "token=snt_admin")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    "path", ["//evil.example/", "///evil.example", "/\\evil.example", "//\\/evil.example/a"]
)
def test_the_login_never_redirects_to_another_host(pages: SecurityHeaders, path: str) -> None:
    status, headers, _ = ask(pages, path, "token=snt_admin")
    assert status == 303
    assert headers["location"].startswith("/evil.example")


def test_the_login_keeps_the_other_parameters(pages: SecurityHeaders) -> None:
    _, headers, _ = ask(pages, "/sql/", "q=select%201&token=snt_admin")
    assert headers["location"] == "/sql/?q=select+1"


def test_a_wrong_token_sets_no_cookie(pages: SecurityHeaders) -> None:
    assert "set-cookie" not in ask(pages, "/", "token=wrong")[1]


def test_pages_only_answer_get(pages: SecurityHeaders) -> None:
    assert ask(pages, "/", method="POST")[0] == 405


def test_a_missing_playground_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(playground, "site", lambda: None)
    monkeypatch.setattr(playground, "can_build", lambda: True)
    with ElkynStore(mode="memory") as tree:
        access = AccessControl.of(
            Tokens("snt_admin", tree),
            RouteRoles([]),
            host="127.0.0.1",
            port=8600,
            hosts=(),
            origins=(),
        )
        app = Pages(access)
        status, _, body = ask(app, "/")
        assert status == 200
        assert b"being built" in body
        app.failed("building it failed; see <log>")
        status, _, body = ask(app, "/")
        assert status == 503
        assert b"&lt;log>" in body
