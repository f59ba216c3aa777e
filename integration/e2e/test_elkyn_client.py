"""`@sennit/elkyn`'s client in a real browser, against a server that is stopped under it."""

from __future__ import annotations

import re

import pytest
from e2e.elkyn_pages import Pages, run
from elkyn_server import Served, until
from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CONNECT = """
  const { url, token } = argument
  const streams = { socket: socketStreams, stream: () => openStream, none: () => undefined }
  window.client = new ElkynClient(url, {
    token, storage: localStorage, streams: streams[argument.kind ?? 'none'](),
  })
"""
SHARE = """
  const worker = new SharedWorker('/dist/worker.js', { type: 'module' })
  const { url, token } = argument
  window.client = new ElkynClient(url, { token, streams: sharedStreams(worker, socketStreams()) })
  window.received = {}
  for (const path of argument.paths) {
    client.on(path, 'value', (value) => (received[path] = value))
  }
  await until(() => Object.keys(received).length === argument.paths.length)
"""
FOLLOW = """
  window.values = []
  window.added = []
  client.on('/numbers', 'value', (value) => values.push(Object.keys(value ?? {}).length))
  client.on('/numbers', 'child_added', (value) => added.push(value))
  await until(() => values.length > 0)
"""


def access(server: Served, **more: object) -> dict[str, object]:
    return {"url": server.url, "token": server.token, **more}


def connections(server: Served, kind: str) -> int:
    found = re.search(f'elkyn_connections{{kind="{kind}"}} (\\d+)', metrics(server))
    assert found
    return int(found[1])


def events(server: Served) -> int:
    found = re.search(r"^elkyn_events_total (\d+)", metrics(server), re.MULTILINE)
    assert found
    return int(found[1])


def metrics(server: Served) -> str:
    return server.client.get("/metrics").text


@pytest.mark.nightly
def test_a_page_imports_the_package_by_its_name(pages: Pages, server: Served) -> None:
    page = pages.open()
    page.set_content(
        """<script type="importmap">{"imports": {"@sennit/elkyn": "/dist/elkyn.js"}}</script>
        <script type="module">
          import { ElkynClient } from '@sennit/elkyn'
          window.Client = ElkynClient
        </script>"""
    )
    page.wait_for_function("() => window.Client !== undefined")
    read = run(
        page,
        """
        const client = new Client(argument.url, { token: argument.token })
        const received = []
        client.on('/users', 'value', (users) => received.push(users))
        await client.set('/users/ann', { name: 'Ann' })
        await client.update('/users', { 'ann/age': 31, 'bob/name': 'Bob' })
        const { key, done } = client.push('/log', 'hello')
        await done
        await client.transaction('/count', (count) => Number(count ?? 0) + 1)
        await client.delete('/users/bob')
        await until(() => JSON.stringify(received.at(-1)) === '{"ann":{"age":31,"name":"Ann"}}')
        const oldest = await client.query('/users', { orderBy: 'age', limitToLast: 1 })
        return [await client.get('/'), key, oldest]
        """,
        access(server),
    )
    ann = {"ann": {"age": 31, "name": "Ann"}}
    assert read == [{"count": 1, "log": {read[1]: "hello"}, "users": ann}, read[1], ann]


@pytest.mark.nightly
def test_many_listeners_leave_room_for_requests(pages: Pages, server: Served) -> None:
    page = pages.open()
    received = run(
        page,
        CONNECT
        + """
        const received = []
        for (let n = 0; n < 20; n += 1) client.on(`/at/${n}`, 'value', (v) => (received[n] = v))
        for (let n = 0; n < 20; n += 1) await client.set(`/at/${n}`, n)
        await until(() => received.filter((value) => value !== null).length === 20)
        return received
        """,
        access(server),
    )
    assert received == list(range(20))
    assert (connections(server, "ws"), connections(server, "sse")) == (1, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["socket", "stream"])
def test_a_listener_gets_each_event_once_over_a_restart(
    pages: Pages, server: Served, kind: str
) -> None:
    page = pages.open()
    run(page, CONNECT + FOLLOW, access(server, kind=kind))
    for number in range(1, 41):
        server.client.put(f"/numbers/n{number:03}.json", json=number)
        if number in (10, 20):
            server.stop()
            server.start()
    run(page, "await until(() => added.length === 40)")
    assert page.evaluate("added") == list(range(1, 41))
    values = page.evaluate("values")
    assert values == sorted(set(values))


@pytest.mark.nightly
def test_two_thousand_writes_arrive_in_order(pages: Pages, server: Served) -> None:
    page = pages.open()
    run(page, CONNECT + FOLLOW, access(server))
    for number in range(2000):
        server.client.put(f"/numbers/n{number:04}.json", json=number)
    run(page, "await until(() => added.length === 2000)")
    assert page.evaluate("added") == list(range(2000))
    values = page.evaluate("values")
    assert values == sorted(set(values))
    assert values[-1] == 2000


@pytest.mark.nightly
def test_a_value_never_goes_back_while_writes_are_answered(pages: Pages, server: Served) -> None:
    page = pages.open()
    seen = run(
        page,
        CONNECT
        + """
        const seen = []
        client.on('/n', 'value', (value) => seen.push(value))
        await until(() => seen.length === 1)
        for (let n = 1; n <= 200; n += 1) await client.set('/n', n)
        const add = { '.sv': { increment: 1 } }
        await Promise.all(Array.from({ length: 100 }, () => client.set('/n', add)))
        return seen
        """,
        access(server),
    )
    assert seen == [None, *range(1, 301)]


@pytest.mark.slow
def test_writes_made_offline_arrive_once(pages: Pages, server: Served) -> None:
    page = pages.open()
    run(page, CONNECT + FOLLOW, access(server))
    pages.context.set_offline(True)
    run(
        page,
        """
        const add = { '.sv': { increment: 1 } }
        window.done = []
        for (let n = 0; n < 50; n += 1) {
          done.push(client.set('/count', add), client.push('/numbers', n).done)
        }
        await until(() => added.length === 50)
        """,
    )
    assert page.evaluate("client.pendingWrites") == 100
    assert server.client.get("/.json").json() is None
    pages.context.set_offline(False)
    run(page, "await Promise.all(done)")
    tree = server.client.get("/.json").json()
    assert tree["count"] == 50
    assert list(tree["numbers"].values()) == list(range(50))
    assert page.evaluate("added") == list(range(50))
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.nightly
def test_waiting_writes_outlive_their_page(pages: Pages, server: Served) -> None:
    page = pages.open()
    server.stop()
    add = """
        for (let n = 0; n < 3; n += 1) {
          client.set('/count', { '.sv': { increment: 1 } }).catch(() => undefined)
        }
    """
    run(page, CONNECT + add, access(server))
    page.reload()
    run(page, CONNECT + add, access(server))
    run(page, "await until(() => client.pendingWrites === 6)")
    server.start()
    run(page, "await until(() => client.pendingWrites === 0)")
    assert server.client.get("/count.json").json() == 6


@pytest.mark.nightly
def test_a_tab_sends_the_writes_of_a_closed_tab(pages: Pages, server: Served) -> None:
    first, second = pages.open(), pages.open()
    run(second, CONNECT, access(server))
    server.stop()
    write = "client.set(argument.path, { '.sv': { increment: 1 } }).catch(() => undefined)"
    run(first, CONNECT + write, access(server, path="/left"))
    run(second, write, {"path": "/own"})
    second.wait_for_timeout(1000)
    assert second.evaluate("client.pendingWrites") == 1
    first.close()
    run(second, "await until(() => client.pendingWrites === 2)")
    server.start()
    run(second, "await until(() => client.pendingWrites === 0)")
    assert server.client.get("/.json").json() == {"left": 1, "own": 1}


def test_tabs_with_a_shared_worker_hold_one_connection(pages: Pages, server: Served) -> None:
    tabs = [pages.open() for _ in range(3)]
    for number, tab in enumerate(tabs):
        run(tab, SHARE, access(server, paths=["/a", "/b/c", "/b", f"/own{number}"]))
    assert (connections(server, "ws"), connections(server, "sse")) == (1, 0)
    server.client.put("/b/c.json", json=7)
    for tab in tabs:
        run(tab, "await until(() => received['/b/c'] === 7 && received['/b']?.c === 7)")
    tabs[1].evaluate("MessagePort.prototype.postMessage = () => undefined; null")  # no goodbye
    tabs[0].close()
    tabs[1].close()
    until(lambda: not listened(server, tabs[2], "/own0"))
    until(lambda: not listened(server, tabs[2], "/own1"))
    assert listened(server, tabs[2], "/own2")
    tabs[2].goto("about:blank")
    until(lambda: connections(server, "ws") == 0)


def listened(server: Served, tab: Page, path: str) -> bool:
    """Whether a write at `path` is sent to a listener, as one at /b/c is sent to `tab`."""
    before = events(server)
    server.client.put(f"{path}.json", json=before)
    server.client.put("/b/c.json", json=before)
    run(tab, "await until(() => received['/b/c'] === argument)", before)
    return events(server) - before > 1


@pytest.mark.nightly
def test_a_later_tab_gets_the_value_and_a_restart_is_survived(pages: Pages, server: Served) -> None:
    first, second = pages.open(), pages.open()
    server.client.put("/a.json", json={"n": 1})
    run(first, SHARE, access(server, paths=["/a"]))
    run(second, SHARE, access(server, paths=["/a", "/a/n"]))
    assert second.evaluate("received") == {"/a": {"n": 1}, "/a/n": 1}
    server.stop()
    server.start()
    server.client.put("/a/n.json", json=2)
    for tab in (first, second):
        run(tab, "await until(() => received['/a'].n === 2)")
    assert connections(server, "ws") == 1


@pytest.mark.nightly
@pytest.mark.parametrize("script", ["delete window.SharedWorker", "window.broken = true"])
def test_a_page_without_a_worker_has_its_own_connection(
    pages: Pages, server: Served, script: str
) -> None:
    pages.context.add_init_script(script)
    page = pages.open()
    received = run(
        page,
        """
        const name = window.broken ? '/dist/missing.js' : '/dist/worker.js'
        const worker = 'SharedWorker' in window ? new SharedWorker(name, { type: 'module' }) : null
        const client = new ElkynClient(argument.url, {
          token: argument.token, streams: sharedStreams(worker, socketStreams()),
        })
        const received = []
        client.on('/a', 'value', (value) => received.push(value))
        await until(() => received.length === 1)
        await client.set('/a', 1)
        return received
        """,
        access(server),
    )
    assert received == [None, 1]
    assert connections(server, "ws") == 1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["socket", "stream"])
def test_listeners_continue_with_a_fresh_token_and_end_without(
    pages: Pages, server: Served, kind: str
) -> None:
    server.rules("default", {"a": {".read": "auth.uid === 'ann'"}, "b": {".read": "true"}})
    page = pages.open()
    run(
        page,
        """
        window.token = Promise.resolve(argument.token)
        window.received = []
        window.refused = []
        const streams = argument.kind === 'socket' ? socketStreams() : openStream
        window.client = new ElkynClient(argument.url, {
          streams,
          token: () => token,
          onRefused: (path, error) => refused.push([path, error.status]),
        })
        client.on('/a', 'value', (value) => received.push(value))
        await until(() => received.length === 1)
        """,
        {"url": server.url, "token": signed(server, "ann"), "kind": kind},
    )
    page.evaluate("token = new Promise((done) => { window.setToken = done }); null")
    page.wait_for_timeout(1100)  # tokens of the very second of a revocation stay good
    server.client.post("/auth/revoke", json={"uid": "ann"})
    page.wait_for_timeout(1100)
    page.evaluate("token => setToken(token)", signed(server, "ann"))
    until(lambda: connections(server, "ws") + connections(server, "sse") == 1)
    server.client.put("/a.json", json=1)
    run(page, "await until(() => received.at(-1) === 1)")
    assert page.evaluate("refused") == []
    page.evaluate("token => { window.token = token }", signed(server, "bob"))
    run(page, "await client.renewToken(); await until(() => refused.length === 1)")
    server.client.put("/a.json", json=2)
    page.evaluate("token => { window.token = token }", signed(server, "ann"))
    run(
        page,
        "client.on('/a', 'value', (v) => received.push(v)); await until(() => received.length > 2)",
    )
    server.client.post("/auth/revoke", json={"uid": "ann"})
    page.wait_for_timeout(1100)
    server.client.post("/auth/revoke", json={"uid": "ann"})
    run(page, "await until(() => refused.length === 2)")
    assert page.evaluate("refused") == [["/a", 401], ["/a", 401]]
    assert page.evaluate("received") == [None, 1, 2]


def signed(server: Served, uid: str) -> str:
    answer = server.client.post("/auth/token", json={"uid": uid})
    return str(answer.json()["token"])
