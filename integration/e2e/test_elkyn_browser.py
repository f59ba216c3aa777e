"""A browser's own EventSource on a served tree: messages, no library."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest
from elkyn_server import running_emulator
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e

LISTEN = """
  path => {
    window.seen = [];
    const events = new EventSource(path);
    events.onmessage = event => window.seen.push(JSON.parse(event.data));
  }
"""


@pytest.fixture
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_emulator(tmp_path_factory.mktemp("elkyn"), "--keep-alive", "1") as started:
        yield started


@pytest.fixture
def page(chromium: Browser, url: str) -> Iterator[Page]:
    opened = chromium.new_page()
    opened.goto(f"{url}/healthz")
    yield opened
    opened.close()


def put(url: str, value: object) -> None:
    body = json.dumps(value).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT")):
        pass


def test_onmessage_gets_the_value_and_every_change(page: Page, url: str) -> None:
    put(f"{url}/users", {"ann": 1})
    page.evaluate(LISTEN, "/users/.watch")
    page.wait_for_function("window.seen.length === 1")
    put(f"{url}/users/bob", 2)
    page.wait_for_function("window.seen.length === 2")
    page.wait_for_timeout(1500)  # a keep-alive is no message
    put(f"{url}/users", None)
    page.wait_for_function("window.seen.length === 3")
    assert page.evaluate("window.seen") == [
        {"type": "put", "path": "/", "data": {"ann": 1}},
        {"type": "put", "path": "/bob", "data": 2},
        {"type": "put", "path": "/", "data": None},
    ]


def test_a_page_writes_and_reads_with_fetch(page: Page) -> None:
    written = page.evaluate(
        """async () => {
          const body = JSON.stringify({ name: 'Ann' });
          await fetch('/users/123', { method: 'PUT', body });
          return (await fetch('/users/123')).json();
        }"""
    )
    assert written == {"name": "Ann"}
