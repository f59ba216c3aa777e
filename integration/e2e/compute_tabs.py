"""Tabs that compute for a node, without the page around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

from elytra.pipelines.pipeline import Pipeline
from sennit.client import Session

WAIT_SECONDS = 60.0

_START = """
async ([token, controls]) => {
  const worker = new Worker('/runtime/outer.js')
  window.outer = worker
  worker.onmessage = ({ data }) => (window.workerState = data)
  worker.onerror = ({ message }) => (window.workerState = { ended: message })
  worker.postMessage({ kind: 'start', token, kindShown: 'tab', controls })
}
"""


def start_worker(page: Page, session: Session, **controls: Any) -> None:
    """Start a worker in a page of the node, with a token of its own, and wait until it is listed."""
    before = connected(session)
    token = session.workers.invite()["token"]
    page.evaluate(_START, [token, controls])
    until(page, lambda: connected(session) - before)


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
