"""Tabs that vanish, freeze or lie, and a node that is killed: the answer is right every time."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e.compute_tabs import Tabs, state_of, until
from playwright.sync_api import Browser

from elytra import Elytra, col, count
from elytra.client.client import Client
from elytra.client.job_handle import Job
from elytra.pipelines.pipeline import Pipeline
from nodes import RunningNode, running_node
from sennit_core.errors import Unavailable
from sennit_core.records import is_terminal

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.crash, pytest.mark.timeout(900)]
ROWS = 300_000
SHARDS = 4
WAIT_SECONDS = 120.0
# Five minutes by default; less to try it out.
SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))

# In the outer worker: the compute worker's results have one other byte in their last value.
_LIE = """
() => {
  const Real = self.Worker
  self.Worker = class extends Real {
    set onmessage(listener) {
      super.onmessage = (event) => {
        const { kind, data } = event.data
        if (kind === 'done') data[data.length - 16] ^= 1
        listener(event)
      }
    }
  }
}
"""


def load(node: RunningNode) -> None:
    with node.session() as session:
        for shard in range(SHARDS):
            session.sql(f"""
                {"create table rows as" if shard == 0 else "insert into rows"}
                select i as n, 'k' || i % 7 as k
                from range({shard * ROWS}, {(shard + 1) * ROWS}) r(i)
            """)


def pipeline(client: Elytra) -> Pipeline:
    text = (col("n") * 3).cast("Utf8").length()
    return client.remote("rows").group_by("k").agg(n=count(), total=col("n").sum(), size=text.sum())


def rows_of(job: Job) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = job.result(WAIT_SECONDS).to_arrow().to_pylist()
    return sorted(rows, key=lambda row: str(row["k"]))


@pytest.fixture
def node(exported: None, tmp_path: Path) -> Iterator[RunningNode]:
    """A node that runs every task of a worker itself too, with short leases."""
    settings = {"SENNIT_WORKERS__SAMPLE_PERCENT": "100", "SENNIT_WORKERS__LEASE_SECONDS": "4"}
    os.environ.update(settings)
    try:
        with running_node(tmp_path / "node", "--memory", "1GiB") as node:
            load(node)
            yield node
    finally:
        for name in settings:
            del os.environ[name]


def test_tabs_that_are_closed_in_their_tasks(browser: Browser, node: RunningNode) -> None:
    with Elytra(node.url, token=node.token) as client, ExitStack() as owned:
        expected = rows_of(pipeline(client).submit(engine="local"))
        tabs = owned.enter_context(Tabs(browser, node.url, node.token, share=0.1))
        tabs.open(2)
        job = pipeline(client).submit(engine="browser")
        for _ in range(2):
            until(tabs.pages[0], tabs.busy_count)
            tabs.close_all()
            tabs.open(2)
        for page in tabs.pages:
            page.evaluate("() => outer.postMessage({ kind: 'set', controls: { share: 1 } })")
        assert rows_of(job) == expected
        assert job.info.engine == "browser"


def test_a_tab_that_is_frozen_loses_its_lease_and_comes_back(
    browser: Browser, node: RunningNode
) -> None:
    with Elytra(node.url, token=node.token) as client, ExitStack() as owned:
        expected = rows_of(pipeline(client).submit(engine="local"))
        tabs = owned.enter_context(Tabs(browser, node.url, node.token, share=0.1))
        tabs.open(1)
        (frozen,) = tabs.pages
        job = pipeline(client).submit(engine="browser")
        until(frozen, tabs.busy_count)
        driver = frozen.context.new_cdp_session(frozen)
        driver.send("Page.setWebLifecycleState", {"state": "frozen"})
        others = owned.enter_context(Tabs(browser, node.url, node.token))
        others.open(1)
        assert rows_of(job) == expected
        driver.send("Page.setWebLifecycleState", {"state": "active"})
        until(frozen, lambda: state_of(frozen)["connected"])
        others.close_all()
        assert rows_of(pipeline(client).submit(engine="browser")) == expected


def test_a_tab_that_lies_is_found_and_excluded(browser: Browser, node: RunningNode) -> None:
    with Elytra(node.url, token=node.token) as client, ExitStack() as owned:
        expected = rows_of(pipeline(client).submit(engine="local"))
        tabs = owned.enter_context(Tabs(browser, node.url, node.token))
        tabs.open(1, _LIE)
        (liar,) = tabs.pages
        job = pipeline(client).submit(engine="browser")
        until(liar, lambda: state_of(liar)["ended"])
        assert "4403" in state_of(liar)["ended"]
        tabs.open(1)
        assert rows_of(job) == expected
        with node.session() as session:
            (excluded,) = session.workers.show()["excluded"]
        assert "wrong rows" in excluded["reason"]


def test_a_node_that_is_killed_gets_its_tabs_back(
    exported: None, browser: Browser, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ("--port", str(port), "--memory", "1GiB")
    with ExitStack() as owned:
        with running_node(tmp_path / "node", *arguments) as node:
            load(node)
            tabs = owned.enter_context(Tabs(browser, node.url, node.token, share=0.1))
            tabs.open(1)
            with Elytra(node.url, token=node.token) as client:
                expected = rows_of(pipeline(client).submit(engine="local"))
                job_id = pipeline(client).submit(engine="browser").id
                until(tabs.pages[0], tabs.busy_count)
            node.kill()
            (tmp_path / "node" / "run.json").unlink(missing_ok=True)
        with running_node(tmp_path / "node", *arguments) as node:
            (page,) = tabs.pages
            page.evaluate("() => outer.postMessage({ kind: 'set', controls: { share: 1 } })")
            until(page, lambda: state_of(page)["connected"])
            with Elytra(node.url, token=node.token) as client:
                try:
                    with Client(node.url, token=node.token) as by_id:
                        answer = rows_of(by_id.job(job_id))
                except (
                    Unavailable
                ):  # jobs that a run of the node has interrupted are submitted again
                    answer = rows_of(pipeline(client).submit(engine="browser"))
            assert answer == expected


def test_tabs_that_come_and_go_leave_nothing_behind(browser: Browser, node: RunningNode) -> None:
    """Twenty tabs at most, jobs all the time, and after it the node is as it was before."""
    chance = random.Random(20)
    process = psutil.Process(node.process.pid)
    with Elytra(node.url, token=node.token) as client, ExitStack() as owned:
        expected = rows_of(pipeline(client).submit(engine="local"))
        tabs = owned.enter_context(Tabs(browser, node.url, node.token))
        tabs.open(1)
        assert rows_of(pipeline(client).submit(engine="browser")) == expected
        before = _held(process)
        ends, jobs = time.monotonic() + SECONDS, 0
        job = pipeline(client).submit(engine="browser")
        while time.monotonic() < ends:
            if len(tabs.pages) < 20 and (len(tabs.pages) < 2 or chance.random() < 0.6):
                tabs.open(1)
            else:
                tabs.pages.pop(chance.randrange(len(tabs.pages))).close()
            if is_terminal("job", job.info.state):
                assert rows_of(job) == expected
                jobs += 1
                job = pipeline(client).submit(engine="browser")
        assert rows_of(job) == expected
        assert jobs > 0
        tabs.close_all()
        with node.session() as session:
            deadline = time.monotonic() + WAIT_SECONDS
            while session.workers.show()["workers"]:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        after = _held(process)
    assert after["fds"] <= before["fds"] + 8, (before, after)
    # Pools start threads as they need them, 40 at the most; one for each connection would be more.
    assert after["threads"] <= before["threads"] + 40, (before, after)
    assert after["rss"] <= before["rss"] + (96 << 20), (before, after)


def _held(process: psutil.Process) -> dict[str, int]:
    """What a process holds."""
    return {
        "fds": process.num_fds(),
        "threads": process.num_threads(),
        "rss": process.memory_info().rss,
    }
