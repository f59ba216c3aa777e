"""Functions that a page calls with rows: what they reach from their sandbox, and how they end."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from elkyn_package import site_of
from npm_packages import pack
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.e2e

# What a function tries; each name is of an attempt, whose outcome is "blocked" or what it got.
ATTEMPTS = """
(leak) => {
  const found = {}
  globalThis.found = found
  const attempt = (name, work) => {
    found[name] = 'no answer'
    const blocked = () => { found[name] = 'blocked' }
    try {
      Promise.resolve(work()).then((got) => { found[name] = String(got) }, blocked)
    } catch { blocked() }
  }
  const event = (target, ...good) => new Promise((done, fail) => {
    for (const name of good) target.addEventListener(name, () => done(name))
    target.addEventListener('error', fail)
  })
  attempt('fetch', () => fetch(leak + 'fetch'))
  attempt('fetch without cors', () => fetch(leak + 'nocors', { mode: 'no-cors' }))
  attempt('fetch of the page', () => fetch(new URL('/dist/index.js', leak)))
  attempt('request', () => {
    const request = new XMLHttpRequest()
    request.open('GET', leak + 'xhr')
    request.send()
    return event(request, 'load')
  })
  attempt('synchronous request', () => {
    const request = new XMLHttpRequest()
    request.open('GET', leak + 'sync', false)
    request.send()
    return request.status
  })
  attempt('socket', () => event(new WebSocket(leak.replace('http', 'ws') + 'socket'), 'open'))
  attempt('event source', () => event(new EventSource(leak + 'events'), 'open'))
  attempt('transport', () => new WebTransport(leak.replace('http:', 'https:')).ready)
  attempt('importScripts', () => importScripts(leak + 'script.js'))
  attempt('importScripts of data', () => importScripts('data:text/javascript,1'))
  attempt('importScripts of a blob', () => importScripts(URL.createObjectURL(new Blob(['1']))))
  attempt('import', () => import(leak + 'module.js'))
  attempt('import of data', () => import('data:text/javascript,export default 1'))
  attempt('worker', () => event(new Worker(leak + 'worker.js'), 'message'))
  attempt('worker of data', () => event(new Worker('data:text/javascript,postMessage(1)'), 'message'))
  attempt('shared worker', () => new SharedWorker(leak + 'shared.js'))
  attempt('worker in the worker', () => {
    const code = `fetch(${JSON.stringify(leak + 'nested')})
      .then(() => postMessage('open'), () => postMessage('blocked'))`
    const nested = new Worker(URL.createObjectURL(new Blob([code])))
    return new Promise((done) => { nested.onmessage = ({ data }) => done(data) })
  })
  attempt('font', () => new FontFace('leak', `url(${leak}font)`).load())
  attempt('database', () => event(indexedDB.open('stolen'), 'success'))
  attempt('cache', () => caches.open('stolen'))
  attempt('files', () => navigator.storage.getDirectory())
  attempt('locks', () => navigator.locks.request('stolen', () => 'held'))
  attempt('cookies', () => cookieStore.getAll())
  attempt('eval', () => (0, eval)('1'))
  attempt('Function', () => new Function('return 1')())
  attempt('beacon', () => navigator.sendBeacon(leak + 'beacon', 'x'))
  attempt('call', () => new RTCPeerConnection({ iceServers: [] }))
  attempt('window', () => window.open(leak + 'open'))
  attempt('parent', () => parent.document.title)
  attempt('top', () => { top.location = leak + 'top' })
  attempt('document', () => document.createElement('img'))
  attempt('storage', () => localStorage.length)
  attempt('service worker', () => navigator.serviceWorker.register(leak + 'sw.js'))
  attempt('channel', () => {
    new BroadcastChannel('leak').postMessage('x')
    throw 1 // that it is heard by no page is checked there
  })
  return 0
}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site whose pages load the package as it is published."""
    folder = tmp_path_factory.mktemp("elytra-js")
    with tarfile.open(pack("elytra", folder)) as files:
        files.extractall(folder, filter="data")
    with site_of(folder / "package") as started:
        yield started


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    errors: list[str] = []
    opened = chromium.new_page()
    opened.set_default_timeout(60_000)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(f"{address}/blank.html")
    yield opened
    opened.close()
    assert errors == []


class _Leaks(BaseHTTPRequestHandler):
    """Answers all requests, and writes down which."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()

    do_POST = do_GET  # noqa: N815  # http.server names it

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def leaks() -> Iterator[tuple[str, list[str]]]:
    """The address of another site, and the paths that were asked of it."""
    seen: list[str] = []
    handler = type("Leaks", (_Leaks,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/leak/", seen
        server.shutdown()
        thread.join()


def run(page: Page, body: str, argument: Any = None) -> Any:
    """Run the body of an async function that has the package's names."""
    return page.evaluate(
        f"""async (argument) => {{
          const {{ Elytra, opaque, count, col }} = await import('/dist/index.js')
          const {{ Sandbox }} = await import('/dist/sandbox/sandbox.js')
          const rows = (count) => new File(
            ['n,t\\n', ...Array.from({{ length: count }}, (_, at) => `${{at}},é${{at}}\\n`)], 'r.csv')
          const failure = (job) => job.then(() => 'done', (error) => [error.code, error.message])
          const call = {{
            verb: 'map', shape: 'row', input: ['n'], returnsValue: true, initial: null,
            output: [{{ name: 'value', kind: 'text' }}],
          }}
          const limits = {{ secondsMax: 20, outputBytesMax: 1e6 }}
          const start = (text, scope = {{}}) => Sandbox.start({{ text, scope }}, call, limits)
          const one = () => ({{ kind: 'rows', rows: 1, columns: [
            {{ form: 'double', values: new ArrayBuffer(8), ends: null, nulls: null }}] }})
          const textOf = ([column]) => new TextDecoder().decode(column.values)
          {body}
        }}""",
        argument,
    )


def test_a_page_calls_functions_with_rows_of_its_file(page: Page) -> None:
    found = run(
        page,
        """
        const file = Elytra.file(rows(40_000))
        const kept = await file
          .filter(opaque((r) => r.t.endsWith('7')))
          .map(opaque((r) => ({ half: r.n / 2, t: r.t + '!' }), {
            returns: { half: 'Float64', t: 'Utf8' },
          }))
          .agg({ n: count(), half: col('half').sum(), last: col('t').max() })
          .collect()
        const sum = await file
          .reduce(opaque((total, r) => total + r.n, { returns: 'Int64' }), 0)
          .collect()
        return [kept.rows, sum.value, document.querySelectorAll('iframe').length]
        """,
    )
    sevens = [n for n in range(40_000) if n % 10 == 7]
    rows = [{"n": 4000, "half": sum(sevens) / 2, "last": "é9997!"}]
    assert found == [rows, sum(range(40_000)), 0]


@pytest.mark.nightly
def test_a_function_reaches_nothing_but_its_rows(page: Page, leaks: tuple[str, list[str]]) -> None:
    leak, seen = leaks
    found, origin, heard = run(
        page,
        """
        const heard = []
        new BroadcastChannel('leak').onmessage = ({ data }) => heard.push(data)
        addEventListener('message', ({ data }) => heard.push(data))
        const sandbox = await start(`() => {
          globalThis.begun ??= (${argument.attempts})(${JSON.stringify(argument.leak)})
          return JSON.stringify([globalThis.found, self.origin])
        }`)
        await sandbox.ask(one())
        await new Promise((done) => setTimeout(done, 3000))
        const [found, origin] = JSON.parse(textOf(await sandbox.ask(one())))
        sandbox.close()
        return [found, origin, heard]
        """,
        {"attempts": ATTEMPTS, "leak": leak},
    )
    assert len(found) == ATTEMPTS.count("attempt('")
    assert {name: got for name, got in found.items() if got != "blocked"} == {}
    assert (origin, heard, seen) == ("null", [], [])


@pytest.mark.nightly
def test_the_document_around_it_reaches_nothing_either(
    page: Page, leaks: tuple[str, list[str]]
) -> None:
    # But for WebRTC and its own address, which no policy of a document forbids: no function runs in it.
    leak, seen = leaks
    run(page, "globalThis.held = await start('() => null'); await held.ask(one())")
    frame = next(frame for frame in page.frames if frame != page.main_frame)
    found = frame.evaluate(
        """async ([leak]) => {
          const tried = {}
          const attempt = (name, work) => {
            try { tried[name] = String(work()) } catch { tried[name] = 'blocked' }
          }
          const add = (name, values) => document.documentElement.append(
            Object.assign(document.createElement(name), values))
          attempt('parent', () => parent.document.title)
          attempt('storage', () => localStorage.length)
          attempt('cookie', () => document.cookie)
          attempt('top', () => { top.location.href = leak + 'top' })
          attempt('open', () => open(leak + 'open'))
          navigator.sendBeacon(leak + 'beacon', 'x')
          new Image().src = leak + 'image'
          add('link', { rel: 'stylesheet', href: leak + 'css' })
          add('link', { rel: 'prefetch', href: leak + 'prefetch' })
          add('link', { rel: 'preload', as: 'image', href: leak + 'preload' })
          add('style', { textContent: `@import url(${leak}import)` })
          add('iframe', { src: leak + 'frame' })
          add('object', { data: leak + 'object' })
          add('video', { src: leak + 'video' })
          add('script', { src: leak + 'script' })
          const form = add('form', { action: leak + 'form' })
          document.querySelector('form')?.submit()
          await fetch(leak + 'fetch').catch(() => 0)
          await new Promise((done) => setTimeout(done, 1500))
          return tried
        }""",
        [leak],
    )
    assert page.url.endswith("/blank.html")
    assert len(page.context.pages) == 1
    run(page, "held.close()")
    assert found.pop("open") in ("null", "blocked")
    assert found.pop("top") in ("undefined", "blocked")
    assert set(found.values()) == {"blocked"}
    assert seen == []


@pytest.mark.nightly
def test_endless_loops_and_memory_bombs_end_and_the_tab_survives(page: Page) -> None:
    endless, objects, arrays, after, frames = run(
        page,
        """
        const file = Elytra.file(rows(3))
        const limited = (fn) => failure(
          file.map(opaque(fn, { returns: 'Int64', secondsMax: 1 })).collect())
        return [
          await limited(() => { for (;;); }),
          await limited(() => { for (const kept = []; ; ) kept.push({ at: kept.length }) }),
          await limited(() => { for (const kept = []; ; ) kept.push(new Float64Array(1 << 23)) }),
          (await file.count().collect()).value,
          document.querySelectorAll('iframe').length,
        ]
        """,
    )
    assert endless[0] == objects[0] == "deadline-exceeded"
    assert arrays[0] in ("deadline-exceeded", "step-failed")
    assert (after, frames) == (3, 0)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("text", "code"),
    [
        # The function shares its thread with the code that sends its results.
        (
            "() => { for (let at = 0; at < 100; at += 1) postMessage({}); return 'x' }",
            "step-failed",
        ),
        ("() => { postMessage({ kind: 'rows', columns: 7 }) }", "step-failed"),
        (
            "() => { postMessage({ kind: 'rows', columns: [{ values: new ArrayBuffer(2e6) }] }) }",
            "too-large",
        ),
        ("() => 'x'.repeat(2e6)", "too-large"),
        ("() => { setTimeout(() => postMessage({}), 0); return 'x' }", "done"),
        ("() => { close(); return 'x' }", "done"),
        ("} syntax error", "step-failed"),
        ("(() => { throw new Error('x'.repeat(1e6)) })()", "step-failed"),
    ],
)
def test_a_hostile_function_ends_its_own_sandbox(page: Page, text: str, code: str) -> None:
    found = run(page, "return failure((await start(argument)).ask(one()))", text)
    assert found == "done" or len(found[1]) < 1200
    assert (found if found == "done" else found[0]) == code


@pytest.mark.nightly
def test_a_page_whose_policy_forbids_the_frame_says_so(chromium: Browser, address: str) -> None:
    page = chromium.new_page()
    policy = "script-src 'self' 'unsafe-eval'"

    def strict(route: Any) -> None:
        html = "<!doctype html><title>strict</title>"
        route.fulfill(
            body=html, headers={"content-security-policy": policy, "content-type": "text/html"}
        )

    page.route("**/strict", strict)
    page.goto(f"{address}/strict")
    found = run(
        page,
        "return failure(Elytra.file(rows(1)).map(opaque(() => 1, { returns: 'Int64' })).collect())",
    )
    page.close()
    assert found[0] == "unsupported"
    assert "cannot start a sandbox" in found[1]
