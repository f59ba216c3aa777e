"""What the first description of Elkyn shows works against `elkyn serve`, from a page of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from elkyn_server import Served, running
from playwright.sync_api import Browser, Page

from elkyn.cli.program import _parser

pytestmark = pytest.mark.e2e

RULES = {
    "users": {
        "$userId": {
            ".read": "$userId === auth.uid || auth.admin === true",
            ".write": "$userId === auth.uid",
            "email": {".read": "$userId === auth.uid"},
        }
    }
}
# With fetch and EventSource alone, as in the description; `base` is http://localhost:9000 there.
WRITES = """
async base => {
  const json = { 'Content-Type': 'application/json' }
  const plain = await fetch(`${base}/users/123`, {
    method: 'PUT', headers: json, body: JSON.stringify({ name: 'Alice', email: 'a@example.com' }),
  })
  const response = await fetch(`${base}/auth/token`, {
    method: 'POST', headers: json, body: JSON.stringify({ uid: 'user123', email: 'u@example.com' }),
  })
  const { token } = await response.json()
  const signed = await fetch(`${base}/users/123`, {
    method: 'PUT',
    headers: { ...json, Authorization: `Bearer ${token}` },
    body: JSON.stringify({ name: 'Alice' }),
  })
  return [plain.status, await signed.json(), token.split('.').length]
}
"""
LISTENS = """
base => {
  window.seen = []
  const events = new EventSource(`${base}/users/.watch`)
  events.onmessage = event => window.seen.push(JSON.parse(event.data))
}
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_words: Any) -> None:
        pass


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[str]:
    """A web page of another origin on this machine."""
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<title>An app</title>")
    handler = partial(_Quiet, directory=str(tmp_path / "page"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Served]:
    with running(tmp_path / "data", "--emulator") as served:
        yield served


@pytest.fixture
def page(chromium: Browser, other_site: str) -> Iterator[Page]:
    opened = chromium.new_page()
    opened.goto(other_site)
    yield opened
    opened.close()


def test_an_app_writes_signs_in_and_listens(page: Page, emulator: Served) -> None:
    base = f"http://localhost:{emulator.port}"
    assert page.evaluate(WRITES, base) == [200, {"name": "Alice"}, 3]
    page.evaluate(LISTENS, base)
    page.wait_for_function("window.seen.length === 1")
    emulator.client.put("/users/124", json={"name": "Bob"})
    page.wait_for_function("window.seen.length === 2")
    first, second = page.evaluate("window.seen")
    assert first["data"] == {"123": {"name": "Alice"}}
    assert second == {"type": "put", "path": "/124", "data": {"name": "Bob"}}


@pytest.mark.nightly
def test_the_dashboard_is_at_index_html(page: Page, emulator: Served) -> None:
    page.goto(f"{emulator.url}/index.html")
    assert "Elkyn" in page.title()


def test_the_port_of_the_description_is_the_usual_one() -> None:
    assert _parser().parse_args(["serve", "--data", "x"]).port == 9000


@pytest.mark.nightly
def test_the_rules_of_the_description_hold(tmp_path: Path) -> None:
    with running(tmp_path / "data") as served:
        served.rules("default", RULES)

        def token(**claims: Any) -> str:
            answer = served.client.post("/auth/token", json=claims)
            return str(answer.json()["token"])

        def status(method: str, path: str, shown: str | None, body: Any = None) -> int:
            headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
            url = served.url + path
            return httpx.request(method, url, headers=headers, json=body, timeout=20).status_code

        alice, boss = token(uid="alice"), token(uid="boss", admin=True)
        assert status("PUT", "/users/alice", alice, {"name": "Alice", "email": "a@b"}) == 200
        assert status("PUT", "/users/alice", boss, {}) == 401
        assert status("PUT", "/users/bob", alice, {}) == 401
        assert status("GET", "/users/alice/email", boss) == 200  # granted above: nothing revokes
        assert status("GET", "/users/alice", None) == 401
        assert status("GET", "/users", alice) == 401
        assert status("POST", "/auth/token", None, {"uid": "alice"}) == 401
