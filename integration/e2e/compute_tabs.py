"""Tabs that compute for a node, without the page around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

from playwright.sync_api import Browser, Page

from elytra.pipelines.pipeline import Pipeline
from sennit.client import Session

WAIT_SECONDS = 90.0

_OUTER = "() => { window.outer = new Worker('/runtime/outer.js') }"
_START = """
([token, controls, threads]) => {
  window.outer.onmessage = ({ data }) => (window.workerState = data)
  window.outer.onerror = ({ message }) => (window.workerState = { ended: message })
  window.outer.postMessage({ kind: 'start', token, kindShown: 'tab', threads, controls })
}
"""


def start_worker(
    page: Page, session: Session, script: str = "", threads: int = 1, **controls: Any
) -> str:
    """Start a worker in a page of the node, with a token of its own; return its id.

    Args:
        page: A page of the node.
        session: Of an admin.
        script: Runs in the outer worker before it starts.
        threads: Tasks that it computes at the same time.
        controls: How much it computes, as `WorkerControls` has it.
    """
    before = connected(session)
    token = session.workers.invite()["token"]
    with page.expect_worker() as started:
        page.evaluate(_OUTER)
    if script:
        started.value.evaluate(script)
    page.evaluate(_START, [token, controls, threads])
    until(page, lambda: connected(session) - before)
    return (connected(session) - before).pop()


def state_of(page: Page) -> dict[str, Any]:
    """The last state that the page's worker has reported."""
    found: dict[str, Any] = page.evaluate("() => window.workerState ?? {}")
    return found


def connected(session: Session) -> set[str]:
    """The ids of the workers that are connected."""
    workers = session.workers.show()["workers"]
    return {each["id"] for each in workers if each["state"] == "connected"}


def until(page: Page, look: Callable[[], object]) -> None:
    """Wait, and let the page's events be handled meanwhile."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not look():
        assert time.monotonic() < deadline, state_of(page)
        page.wait_for_timeout(20)


def rows_of(pipeline: Pipeline, engine: str) -> list[dict[str, Any]]:
    """The rows of a pipeline, computed by an engine."""
    result = pipeline.distribute(engine=engine, timeout_seconds=WAIT_SECONDS)
    rows: list[dict[str, Any]] = result.to_arrow().to_pylist()
    return rows


class Tabs:
    """A number of tabs, each of which is a worker.

    Args:
        browser: Opens them.
        url: The node's address.
        token: Of an admin of the node.
        controls: How much each computes.
    """

    def __init__(self, browser: Browser, url: str, token: str, **controls: Any) -> None:
        self._context = browser.new_context()
        self._url = url
        self._token = token
        self._session = Session.open(url, token=token, data=None)
        self._controls = controls
        self.pages: list[Page] = []

    def open(self, count: int, script: str = "") -> list[str]:
        """Open tabs; return the ids of their workers once they are connected."""
        ids = []
        for _ in range(count):
            page = self._context.new_page()
            page.goto(f"{self._url}/?token={self._token}")
            self.pages.append(page)
            ids.append(start_worker(page, self._session, script, **self._controls))
        return ids

    def busy_count(self) -> int:
        """How many tasks are computed now."""
        return sum(int(state_of(page).get("computing", 0)) for page in self.pages)

    def close_all(self) -> None:
        """Close the tabs without a word to the node."""
        closing, self.pages = self.pages, []
        for page in closing:
            page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
        self._session.__exit__(None, None, None)
