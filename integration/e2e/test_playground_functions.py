"""Functions of others in a tab: only where its user allows them, and how hostile ones end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa
import pytest
from e2e.browser_site import Site, Watched, running_site, violations
from e2e.compute_tabs import until
from playwright.sync_api import Browser, Page, expect

from elytra.functions.javascript import JavascriptStep
from emsqrt.expr import col, count
from emsqrt.plan import Aggregate, DatasetRef, Plan, Scan, plan_to_json
from sennit.client import Session
from sennit_core.schema import Schema

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

COLUMNS = {"n": pa.int64(), "t": pa.string()}


@pytest.fixture(scope="module")
def functions_site(exported: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node that sends functions, with a table of two shards."""
    data = tmp_path_factory.mktemp("functions")
    with running_site(data, SENNIT_ELYTRA__ALLOW_JAVASCRIPT="true") as site:
        with Session.open(site.url, token=site.token, data=None) as session:
            numbers = "select i as n, 't' || i as t from range({}, {}) r(i)"
            session.sql(f"create table numbers as {numbers.format(0, 20_000)}")
            session.sql(f"insert into numbers {numbers.format(20_000, 40_000)}")
        yield site


@pytest.fixture
def tab(browser: Browser, functions_site: Site, watched: Watched) -> Iterator[Page]:
    """The page Compute, as a worker that has not allowed functions."""
    context = browser.new_context(viewport={"width": 1360, "height": 860})
    page = context.new_page()
    page.on("console", watched.record)
    page.on("pageerror", lambda error: watched.complaints.append(f"uncaught: {error}"))
    page.goto(f"{functions_site.url}/?token={functions_site.token}")
    page.goto(f"{functions_site.url}/compute/")
    page.get_by_role("slider", name="Processor time").fill("95")
    page.get_by_role("button", name="Compute for this node").click()
    page.get_by_role("dialog").get_by_role("button", name="Compute").click()
    status = page.get_by_role("region", name="This tab").get_by_role("status")
    expect(status).to_have_text("connected")
    yield page
    context.close()


def function(text: str, **columns: pa.DataType) -> Plan:
    """A map over the table whose function is a text."""
    schema = Schema.from_arrow(pa.schema(columns or {"value": pa.float64()}))
    step = JavascriptStep("map", text, "step 1, map", returns_value=not columns)
    return step.over(Scan(DatasetRef("numbers")), schema)


def submit(site: Site, plan: Plan) -> str:
    body = {"plan": plan_to_json(plan), "engine": "browser"}
    answer = httpx.post(f"{site.url}/api/jobs", json=body, headers=_headers(site))
    assert answer.status_code < 300, answer.text
    return str(answer.json()["jobId"])


def record(site: Site, job: str) -> Any:
    return httpx.get(f"{site.url}/api/jobs/{job}", headers=_headers(site)).json()


def ended(site: Site, page: Page, job: str) -> Any:
    """The record of a job when it has ended; the page's events are handled meanwhile."""
    until(page, lambda: record(site, job)["state"] in ("done", "failed"))
    return record(site, job)


def _headers(site: Site) -> dict[str, str]:
    return {"authorization": f"Bearer {site.token}"}


def allow(page: Page) -> None:
    page.get_by_label("Run functions from others").click()
    page.get_by_role("dialog").get_by_role("button", name="Run functions").click()
    expect(page.get_by_label("Run functions from others")).to_be_checked()


def frames(page: Page) -> int:
    return int(page.evaluate("document.querySelectorAll('iframe').length"))


def test_functions_run_in_a_tab_whose_user_allowed_them_and_stop_when_that_ends(
    tab: Page, functions_site: Site, watched: Watched
) -> None:
    doubled = function("(r) => ({ twice: r.n * 2, t: r.t + '!' })", twice=pa.int64(), t=pa.string())
    sums = Aggregate(
        doubled, (), (("n", count()), ("total", col("twice").sum()), ("last", col("t").max()))
    )
    job = submit(functions_site, sums)
    tab.wait_for_timeout(2000)
    assert record(functions_site, job)["state"] in ("queued", "running")
    expect(tab.get_by_text(re.compile(r"^Tasks done\s*0"))).to_be_visible()

    tab.get_by_label("Run functions from others").click()
    dialog = tab.get_by_role("dialog", name="Run functions from others?")
    expect(dialog).to_contain_text(functions_site.url.removeprefix("http://"))
    assert violations(tab) == []
    dialog.get_by_role("button", name="Not now").click()
    expect(tab.get_by_label("Run functions from others")).not_to_be_checked()
    assert record(functions_site, job)["state"] in ("queued", "running")

    allow(tab)
    assert ended(functions_site, tab, job)["state"] == "done"
    answer = httpx.get(
        f"{functions_site.url}/api/jobs/{job}/result", headers=_headers(functions_site)
    ).json()
    assert answer["rows"] == [[40_000, 2 * sum(range(40_000)), "t9999!"]]
    assert frames(tab) == 0
    # It is remembered, and ends at once.
    tab.reload()
    expect(tab.get_by_label("Run functions from others")).to_be_checked()
    tab.get_by_role("button", name="Compute for this node").click()
    endless = submit(functions_site, function("() => { for (;;); }"))
    until(tab, lambda: frames(tab) == 1)
    tab.get_by_label("Run functions from others").click()
    until(tab, lambda: frames(tab) == 0)
    httpx.delete(f"{functions_site.url}/api/jobs/{endless}", headers=_headers(functions_site))


HOSTILE = {
    "endless loop": "() => { for (;;); }",
    "memory in arrays": "() => { for (const kept = []; ; ) kept.push(new Float64Array(1 << 23)) }",
    "memory in objects": "() => { for (const kept = []; ; ) kept.push({ at: kept.length }) }",
    "flood of messages": "() => { for (let at = 0; at < 1000; at += 1) postMessage({}); return 1 }",
    "too much output": (
        "() => { postMessage({ kind: 'rows', columns: [{ values: new ArrayBuffer(2e7) }] }) }"
    ),
    "forged result": (
        "() => { postMessage({ kind: 'rows', columns: [{ form: 'double',"
        " values: new ArrayBuffer(3), ends: null, nulls: null }] }); for (;;); }"
    ),
    "changed prototypes": (
        "() => { Array.prototype.map = () => [{ form: 'text', __proto__: { x: 1 } }];"
        " Object.prototype.values = 7; return 1 }"
    ),
    "syntax": "} syntax error",
    "error of a megabyte": "() => { throw new Error('x'.repeat(1e6)) }",
    "value of another type": "() => 'text'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_function_fails_its_job_and_the_tab_goes_on(
    tab: Page, functions_site: Site, watched: Watched, name: str
) -> None:
    allow(tab)
    failed = ended(functions_site, tab, submit(functions_site, function(HOSTILE[name])))
    assert (failed["state"], failed["error"]["code"]) == ("failed", "step-failed"), failed
    assert len(json.dumps(failed["error"])) < 3000
    assert frames(tab) == 0
    after = submit(functions_site, Aggregate(function("(r) => r.n"), (), (("n", count()),)))
    assert ended(functions_site, tab, after)["state"] == "done"


def test_a_function_reaches_no_network_storage_or_page(
    tab: Page, functions_site: Site, watched: Watched
) -> None:
    allow(tab)
    # What is reached synchronously or by the second batch; the whole list is in test_function_sandbox.py.
    text = """(r) => {
      if (!globalThis.found) {
        const found = globalThis.found = []
        const attempt = (name, work) => {
          try { Promise.resolve(work()).then(() => found.push(name), () => 0) } catch {}
        }
        attempt('fetch', () => fetch('/healthz'))
        attempt('absolute', () => fetch('URL/healthz', { mode: 'no-cors' }))
        attempt('socket', () => new Promise((open, fail) => {
          const socket = new WebSocket('URL/api/workers'.replace('http', 'ws'))
          socket.onopen = open; socket.onerror = fail
        }))
        attempt('script', () => importScripts('URL/runtime/outer.js'))
        attempt('import', () => import('URL/runtime/outer.js'))
        attempt('database', () => new Promise((open, fail) => {
          const asked = indexedDB.open('x'); asked.onsuccess = open; asked.onerror = fail
        }))
        attempt('files', () => navigator.storage.getDirectory())
        attempt('cache', () => caches.open('x'))
        attempt('eval', () => (0, eval)('1'))
        attempt('page', () => parent.document.title)
        attempt('storage', () => localStorage.length)
        const wait = Date.now(); while (Date.now() - wait < 300);
      }
      return found.join()
    }""".replace("URL", functions_site.url)
    plan = function(text, value=pa.string())
    step = JavascriptStep("map", text, "step 1, map", returns_value=True)
    plan = step.over(
        Scan(DatasetRef("numbers")), Schema.from_arrow(pa.schema({"value": pa.string()}))
    )
    job = submit(functions_site, Aggregate(plan, (("value", col("value")),), (("n", count()),)))
    assert ended(functions_site, tab, job)["state"] == "done"
    answer = httpx.get(
        f"{functions_site.url}/api/jobs/{job}/result", headers=_headers(functions_site)
    ).json()
    assert answer["rows"] == [["", 40_000]]
    watched.complaints.clear()  # what was refused is written there
