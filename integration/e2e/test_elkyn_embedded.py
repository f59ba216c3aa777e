"""`@sennit/elkyn`'s store in a real browser: kept in IndexedDB, shared by tabs, following a server."""

from __future__ import annotations

import re

import pytest
from e2e.elkyn_pages import Pages, run
from elkyn_server import Served, until
from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

OPEN = """
  window.store = new ElkynStore({ mode: 'standalone', path: 'tree' })
  await store.ready
"""
FOLLOW = """
  const { url, token } = argument
  window.store = new ElkynStore({ mode: 'replica', url, token, path: 'copy', paths: ['/a'] })
  window.received = []
  await store.ready
  store.on('/a', 'value', (value) => received.push(value))
"""


def tree(page: Page) -> object:
    return page.evaluate("store.get('/')")


def test_stored_writes_are_there_after_a_reload(pages: Pages) -> None:
    page = pages.open()
    received = run(
        page,
        OPEN
        + """
        const received = []
        const stop = store.on('/users', 'child_added', (user, id) => received.push([id, user]))
        await store.set('/users/ann', { name: 'Ann', tags: ['a', 'b'] })
        await store.update('/users', { 'ann/age': 31, bob: { name: 'Bob' } })
        const { done } = store.push('/log', 'hello')
        await done
        stop()
        await store.set('/users/eve', 1)
        await store.set('/users/eve', null)
        await store.set('/at', { '.sv': 'timestamp' })
        await store.set('/n', { '.sv': { increment: 2 } })
        return received
        """,
    )
    assert received == [["ann", {"name": "Ann", "tags": ["a", "b"]}], ["bob", {"name": "Bob"}]]
    before = tree(page)
    page.reload()
    run(page, OPEN)
    assert tree(page) == before
    assert page.evaluate("store.get('/users/bob/name')") == "Bob"
    run(page, "await store.close()")


@pytest.mark.nightly
def test_two_tabs_share_a_store(pages: Pages) -> None:
    tabs = [pages.open(), pages.open()]
    begin = """
        window.written = (async () => {
          const add = { '.sv': { increment: 1 } }
          for (let n = 0; n < 200; n += 1) {
            await Promise.all([
              store.update('/', { count: add, [`by/${argument}`]: n, last: argument }),
              store.push('/log', argument).done,
            ])
          }
        })()
    """
    for number, tab in enumerate(tabs):
        run(tab, OPEN + "window.counts = []; store.on('/count', 'value', (n) => counts.push(n))")
        run(tab, begin, number)
    for tab in tabs:
        run(tab, "await written")
    for tab in tabs:
        run(tab, "await until(() => Object.keys(store.get('/log')).length === 400)")
    assert tree(tabs[0]) == tree(tabs[1])
    assert tabs[0].evaluate("store.get('/count')") == 400
    for tab in tabs:
        counts = tab.evaluate("counts.slice(1)")
        assert counts == sorted(set(counts))
    before = tree(tabs[0])
    tabs[0].close()
    tabs[1].reload()
    run(tabs[1], OPEN)
    assert tree(tabs[1]) == before


@pytest.mark.nightly
def test_a_tab_closed_at_once_leaves_acknowledged_writes(pages: Pages) -> None:
    page = pages.open()
    run(
        page,
        OPEN
        + """
        const write = async () => {
          for (let n = 1; ; n += 1) {
            await store.set(`/at/k${n}`, n)
            localStorage.setItem('acknowledged', n)
          }
        }
        void write().catch(() => undefined)
        await until(() => Number(localStorage.getItem('acknowledged')) > 50)
        """,
    )
    page.close(run_before_unload=False)
    page = pages.open()
    run(page, OPEN)
    acknowledged = int(page.evaluate("localStorage.getItem('acknowledged')"))
    kept = page.evaluate("Object.keys(store.get('/at')).length")
    assert kept >= acknowledged > 50


@pytest.mark.nightly
def test_a_long_log_is_shortened_under_both_tabs(pages: Pages) -> None:
    first, second = pages.open(), pages.open()
    for tab in (first, second):
        run(tab, OPEN)
    run(
        first,
        """
        for (let round = 0; round < 30; round += 1) {
          const writes = Array.from({ length: 150 }, (_, n) => store.set(`/k${n}`, round))
          await Promise.all(writes)
        }
        """,
    )
    run(second, "await store.set('/second', true)")
    run(first, "await until(() => store.get('/second') === true)")
    assert tree(first) == tree(second)
    assert rows(first) < 4096
    before = tree(first)
    first.reload()
    run(first, OPEN)
    assert tree(first) == before


def rows(page: Page) -> int:
    """How many entries the database holds."""
    count = """
        const opening = indexedDB.open('elkyn/tree')
        await until(() => opening.readyState === 'done')
        const counting = opening.result.transaction('entries').objectStore('entries').count()
        await until(() => counting.readyState === 'done')
        opening.result.close()
        return counting.result
    """
    return int(run(page, count))


@pytest.mark.nightly
def test_a_write_that_the_browser_does_not_store_is_rolled_back(pages: Pages) -> None:
    page = pages.open()
    run(page, OPEN + "await store.set('/small', 1)")
    failed = run(
        page,
        """
        const received = []
        store.on('/large', 'value', (value) => received.push(value))
        const { add } = IDBObjectStore.prototype
        IDBObjectStore.prototype.add = function (...entry) {
          const request = add.apply(this, entry)
          this.transaction.abort()
          return request
        }
        const error = await store.set('/large', 'x').catch((error) => error)
        IDBObjectStore.prototype.add = add
        return [error.name, received, store.get('/large')]
        """,
    )
    assert failed == ["ElkynError", [None, "x", None], None]
    run(page, "await store.set('/small', 2)")
    page.reload()
    run(page, OPEN)
    assert tree(page) == {"small": 2}


@pytest.mark.nightly
def test_a_store_in_memory_ends_with_its_page(pages: Pages) -> None:
    page = pages.open()
    open_memory = "window.store = new ElkynStore({ mode: 'memory' }); "
    run(page, open_memory + "await store.set('/a', [1, null, 3])")
    assert tree(page) == {"a": [1, None, 3]}
    page.reload()
    run(page, open_memory)
    assert tree(page) is None


def test_a_replica_follows_writes_and_starts_without_the_server(
    pages: Pages, server: Served
) -> None:
    server.client.put("/.json", json={"a": {"n": 1}, "b": 2})
    access = {"url": server.url, "token": server.token}
    page = pages.open()
    run(page, FOLLOW + "await until(() => store.get('/a/n') === 1)", access)
    shown = run(
        page,
        "const done = store.set('/a/m', 5); const now = store.get('/a/m'); await done; return [now, store.get('/a/m'), store.get('/b')]",
    )
    assert shown == [5, 5, None]
    assert server.client.get("/a.json").json() == {"m": 5, "n": 1}
    server.stop()
    page.reload()
    run(page, FOLLOW, access)
    assert tree(page) == {"a": {"m": 5, "n": 1}}
    server.start()
    server.client.put("/a/n.json", json=2)
    run(page, "await until(() => store.get('/a/n') === 2)")
    assert page.evaluate("received") == [{"m": 5, "n": 1}, {"m": 5, "n": 2}]


@pytest.mark.nightly
def test_of_two_tabs_with_one_replica_one_follows(pages: Pages, server: Served) -> None:
    access = {"url": server.url, "token": server.token}
    first, second = pages.open(), pages.open()
    for tab in (first, second):
        run(tab, FOLLOW, access)
    server.client.put("/a.json", json=1)
    for tab in (first, second):
        run(tab, "await until(() => store.get('/a') === 1)")
    assert streams(server) == 1
    run(second, "await store.set('/a', 2)")
    run(first, "await until(() => store.get('/a') === 2)")
    first.close()
    server.client.put("/a.json", json=3)
    run(second, "await until(() => store.get('/a') === 3)")
    until(lambda: streams(server) == 1)
    assert second.evaluate("received") == [None, 1, 2, 3]


def streams(server: Served) -> int:
    found = re.search(r'elkyn_connections{kind="sse"} (\d+)', server.client.get("/metrics").text)
    assert found
    return int(found[1])
