"""Rings in a real browser: its own threads share one, and a Python server's comes over a bridge."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from npm_packages import TSC, folder_of, pack
from npm_packages import run as run_tool
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.e2e

PACKAGE = folder_of("strand")
RECORDS = 20_000


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is published, and the README's programs, as modules a browser loads."""
    folder = tmp_path_factory.mktemp("strand")
    sources = folder / "readme"
    sources.mkdir()
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```ts\n// (\w+\.ts)\n(.*?)```", readme, re.DOTALL):
        browsers = code.replace("'@sennit/strand'", "'/strand/index'")
        (sources / name).write_text(browsers.replace("./worker.ts", "./worker.js"))
    options = ("--target", "es2022", "--module", "preserve", "--noCheck", "--skipLibCheck")
    run_tool(str(TSC), *map(str, sources.glob("*.ts")), "--outDir", ".", *options, cwd=folder)
    with tarfile.open(pack("strand", folder)) as archive:
        archive.extractall(folder, filter="data")
    (folder / "package/dist").rename(folder / "strand")
    shutil.copy(Path(__file__).with_name("strand_reader.js"), folder)
    return folder


@pytest.fixture(scope="module")
def address(compiled: Path) -> Iterator[str]:
    """A Python server in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("strand_site.py")), str(compiled)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    """An empty page that may share memory; the test fails when anything in it was not caught."""
    errors: list[str] = []
    opened = chromium.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(address)
    assert opened.evaluate("crossOriginIsolated")
    yield opened
    opened.close()
    assert errors == []


def run(page: Page, script: str, argument: Any = None) -> Any:
    """Run the body of an async function that has the package's names."""
    names = (
        "buildSchema, computeStrandMap, initStrandHeader, StrandView, StrandWriter, "
        "bridgeFromWebSocket, bridgeFromFetch, WouldBlockError"
    )
    return page.evaluate(
        f"""async (argument) => {{
          const {{ {names} }} = await import('/strand/index')
          const {{ readToEnd }} = await import('/strand_reader')
          self.onmessage = null // the reader's, which is a Worker's module too
          {script}
        }}""",
        argument,
    )


def test_the_readmes_worker_and_page_share_a_ring(page: Page, address: str) -> None:
    page.goto(f"{address}/page/main")
    expect(page.locator("body")).to_have_text("type-b: record 2321")
    expect(page).to_have_title("100 %")


def test_the_readmes_page_reads_what_a_python_server_streams(page: Page, address: str) -> None:
    page.goto(f"{address}/page/stream")
    expect(page.locator("body")).to_have_text(str(sum(range(1000))))


@pytest.mark.sample(1)
@pytest.mark.parametrize("version", [5, 6])
def test_page_and_workers_read_what_another_process_writes(page: Page, version: int) -> None:
    found = run(
        page,
        """
        const url = `ws://${location.host}/socket?count=${argument.count}&version=${argument.version}`
        const bridge = await bridgeFromWebSocket(url)
        const view = new StrandView(bridge.buffer)
        const attached = []
        const results = [false, true].map((blocking) => new Promise((done) => {
          const worker = new Worker('/strand_reader.js', { type: 'module' })
          attached.push(new Promise((ready) => {
            worker.onmessage = ({ data }) => {
              if (data === 'attached') return ready()
              ready()
              worker.terminate()
              done(data)
            }
          }))
          worker.postMessage({ buffer: bridge.buffer, blocking })
        }))
        await Promise.all(attached)
        const here = await readToEnd(view)
        await bridge.finished
        return [here, ...(await Promise.all(results))]
        """,
        {"count": RECORDS, "version": version},
    )
    assert found == [RECORDS] * 3


@pytest.mark.nightly
@pytest.mark.parametrize("version", [5, 6])
def test_a_response_body_becomes_a_ring(page: Page, version: int) -> None:
    right = run(
        page,
        """
        const url = `/body?count=${argument.count}&version=${argument.version}`
        const bridge = await bridgeFromFetch(fetch(url))
        const right = await readToEnd(new StrandView(bridge.buffer))
        await bridge.finished
        return right
        """,
        {"count": RECORDS, "version": version},
    )
    assert right == RECORDS


@pytest.mark.nightly
def test_an_abort_on_the_page_stops_the_producer_on_the_server(page: Page) -> None:
    script = """
        const bridge = await bridgeFromWebSocket(`ws://${location.host}/socket?count=100000000`)
        const view = new StrandView(bridge.buffer)
        await view.waitForCommit(0)
        view.signalAbort()
        const error = await bridge.finished.catch((error) => error)
        for (let outcome = null; ; await new Promise((done) => setTimeout(done, 50))) {
          outcome = await (await fetch('/outcome')).json()
          if (outcome === 'aborted') return [error.name, outcome]
        }
    """
    assert run(page, script) == ["StrandAbortError", "aborted"]


@pytest.mark.nightly
def test_a_page_that_must_not_block_writes_by_promise(page: Page) -> None:
    script = """
        const schema = buildSchema([{ name: 'n', type: 'u32' }])
        const map = computeStrandMap({ schema, indexCapacity: 8, heapCapacity: 128 })
        const buffer = new SharedArrayBuffer(map.totalBytes)
        initStrandHeader(buffer, map)
        const [view, writer] = [new StrandView(buffer), new StrandWriter(buffer)]
        const rows = Array.from({ length: 100 }, (_, n) => [n])
        let refused = null
        try { writer.writeRecordBatch(rows.slice(0, 9)) } catch (error) { refused = error }
        const writing = writer.writeRecordBatchAsync(rows.slice(8)).then(() => writer.finalize())
        const cursor = view.allocateCursor()
        const seen = []
        for (let count; (count = await view.waitForCommit(seen.length)) > seen.length; ) {
          while (seen.length < count && cursor.seek(seen.length)) seen.push(cursor.getU32('n'))
          view.acknowledgeRead(count)
        }
        await writing
        return [refused instanceof WouldBlockError, seen]
    """
    assert run(page, script) == [True, list(range(100))]


@pytest.mark.nightly
def test_a_browser_without_wait_async_polls(page: Page) -> None:
    script = """
        Atomics.waitAsync = undefined
        const bridge = await bridgeFromWebSocket(`ws://${location.host}/socket?count=3000`)
        return readToEnd(new StrandView(bridge.buffer))
    """
    assert run(page, script) == 3000
