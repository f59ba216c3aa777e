"""The outer worker and the compute worker in a real page of a real node."""

from __future__ import annotations

import pytest
from e2e.browser_site import Site, Watched
from e2e.compute_tabs import WAIT_SECONDS, rows_of, start_worker, state_of, until
from playwright.sync_api import Page

from elytra import Elytra, col, count
from sennit.client import Session

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

# In a task of its own: the driver's own calls may evaluate text whatever the policy is.
_EVAL = """
() => new Promise((resolve) => setTimeout(() => {
  try { resolve(new Function('return 7')()) } catch (error) { resolve(error.name) }
}))
"""
_REACH = """
async () => {
  const tries = {
    fetch: () => fetch('/healthz'),
    socket: () => new Promise((open, fail) => {
      const socket = new WebSocket('ws://' + location.host + '/api/workers')
      socket.onopen = open
      socket.onerror = fail
    }),
    worker: () => new Promise((open, fail) => {
      const worker = new Worker('/runtime/compute.js')
      worker.onmessage = open
      worker.onerror = fail
    }),
    foreign: () => importScripts('data:text/javascript,self.got=1'),
  }
  const reached = []
  for (const [name, tried] of Object.entries(tries)) {
    try { await tried(); reached.push(name) } catch {}
  }
  return reached
}
"""


def test_the_compute_worker_may_evaluate_and_reach_nothing_else(
    page: Page, watched: Watched
) -> None:
    assert page.evaluate(_EVAL) == "EvalError"
    for script, evaluated in (("outer", "EvalError"), ("compute", 7)):
        with page.expect_worker() as started:
            page.evaluate("(name) => { new Worker(`/runtime/${name}.js`) }", script)
        assert started.value.evaluate(_EVAL) == evaluated
    assert started.value.evaluate(_REACH) == []
    watched.complaints.clear()  # what was refused is written there


# In the outer worker: the thread and task of each report of rows, in their order.
_WATCH_THREADS = """
() => {
  const Real = self.Worker
  let started = 0
  self.reports = []
  self.Worker = class extends Real {
    number = (started += 1)
    set onmessage(listener) {
      super.onmessage = (event) => {
        const { kind, ticket } = event.data
        if (kind === 'progress') self.reports.push(`${this.number} ${ticket}`)
        listener(event)
      }
    }
  }
}
"""
# Whether a task was reported after another one that began later.
_OVERLAP = """
() => self.reports.some((task, at, all) => {
  const other = all.findIndex((each, later) => later > at && each !== task)
  return other > 0 && all.includes(task, other)
})
"""


def test_a_tab_computes_two_tasks_at_the_same_time_and_has_the_input_of_a_third(
    site: Site, page: Page
) -> None:
    with (
        Session.open(site.url, token=site.token, data=None) as session,
        Elytra(site.url, token=site.token) as client,
    ):
        session.sql("create table threes as select i as n from range(0, 300000) r(i)")
        for start in (300_000, 600_000):
            session.sql(f"insert into threes select i from range({start}, {start + 300_000}) r(i)")
        start_worker(page, session, _WATCH_THREADS, threads=2, share=0.05)
        sizes = {f"s{by}": (col("n") * by).cast("Utf8").length().sum() for by in range(4)}
        rows = client.remote("threes").agg(**sizes)
        expected = rows_of(rows, "local")
        job = rows.submit(engine="browser")
        until(page, lambda: (state_of(page)["computing"], state_of(page)["waiting"]) == (2, 1))
        assert state_of(page)["done"] == 0
        (outer,) = (each for each in page.workers if each.url.endswith("outer.js"))
        until(page, lambda: outer.evaluate(_OVERLAP))
        page.evaluate("() => outer.postMessage({ kind: 'set', controls: { share: 1 } })")
        assert job.result(WAIT_SECONDS).to_arrow().to_pylist() == expected
        (shown,) = (each for each in session.workers.show()["workers"] if each["finished"])
        assert (shown["threads"], shown["finished"], shown["failed"]) == (2, 3, 0)


def test_a_tab_computes_the_rows_of_the_node(site: Site, loaded: str, page: Page) -> None:
    with (
        Session.open(site.url, token=site.token, data=None) as session,
        Elytra(site.url, token=site.token) as client,
    ):
        start_worker(page, session, share=0.9)
        rows = client.remote(loaded)
        value = col("tons") * 0.1
        for pipeline in (
            rows.filter(col("tons") > 500).group_by("port").agg(n=count(), mean=value.avg()),
            rows.filter(col("tons") > 1000).select("ship", "depth", value=value),
        ):
            assert rows_of(pipeline, "browser") == rows_of(pipeline, "local")
        until(page, lambda: state_of(page)["done"] == 2)
        state = state_of(page)
        (shown,) = (each for each in session.workers.show()["workers"] if each["finished"])
        assert (shown["kind"], shown["failed"], state["failed"]) == ("tab", 0, 0)
        assert state["rows"] > 0 < state["bytesIn"]
        assert state["bytesOut"] > 0 == state["computing"]
        # The same shards again: their inputs are in the browser's cache, which the page can see.
        page.evaluate(
            "() => window.outer.postMessage({ kind: 'set', controls: { inputBytesMax: 1 << 28 } })"
        )
        groups = rows.group_by("port").agg(deepest=col("depth").max())
        first = rows_of(groups, "browser")
        received = state_of(page)["bytesIn"]
        again = rows_of(groups.filter(col("port") != ""), "browser")
        assert again == first == rows_of(groups, "local")
        until(page, lambda: state_of(page)["done"] == 4)
        assert state_of(page)["bytesIn"] == received > state["bytesIn"]
        assert page.evaluate(
            "async () => (await (await caches.open('sennit-inputs')).keys()).length"
        )
        page.evaluate("() => window.outer.postMessage({ kind: 'drain' })")
        until(page, lambda: state_of(page)["ended"] == "stopped")
