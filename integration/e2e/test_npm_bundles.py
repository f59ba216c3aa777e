"""The npm packages, installed from their archives and bundled, in a real browser on a real node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from npm_packages import NAMES, TSC, bundle, folder_of, install, pack, run
from playwright.sync_api import Browser, Page, Route, expect

from nodes import RunningNode, running_node

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ENTRY = """
import { sharedStreams, ElkynClient } from '@sennit/elkyn'
import { send } from './upload.js'
import { buildSchema, computeStrandMap, initStrandHeader, StrandView, StrandWriter } from '@sennit/strand'

window.send = (name, text) => send(new File([text], name))
window.ring = async () => {
  const schema = buildSchema([{ name: 'id', type: 'u32' }])
  const map = computeStrandMap({ schema, indexCapacity: 8, heapCapacity: 128 })
  const buffer = new SharedArrayBuffer(map.totalBytes)
  initStrandHeader(buffer, map)
  new StrandWriter(buffer).writeRecordBatch([{ id: 4 }, { id: 5 }])
  const view = new StrandView(buffer)
  const cursor = view.allocateCursor()
  return Array.from({ length: await view.waitForCommit(0) }, (_, at) => cursor.seek(at) && cursor.getU32('id'))
}
window.elkyn = [typeof ElkynClient, typeof sharedStreams]
document.body.textContent = 'ready'
"""


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A consumer whose code is the README's, bundled with its worker."""
    folder = tmp_path_factory.mktemp("bundled")
    install([pack(name, folder) for name in NAMES], folder)
    readme = (folder_of("elytra") / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```ts\n// (\w+\.ts)\n(.*?)```", readme, re.DOTALL)
    for name, code in snippets:
        (folder / name).write_text(code, encoding="utf-8")
    strict = "--strict --target es2022 --module nodenext --lib es2024,dom,dom.iterable --types node"
    roots = ("--typeRoots", str(TSC.parents[1] / "@types"))
    run(str(TSC), *(name for name, _ in snippets), *strict.split(), *roots, cwd=folder)
    return bundle(folder, ENTRY)


@pytest.fixture(scope="module")
def api_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with running_node(tmp_path_factory.mktemp("node"), "--api-only", "--memory", "1GiB") as started:
        yield started


@pytest.fixture
def page(chromium: Browser, bundled: Path, api_node: RunningNode) -> Iterator[Page]:
    """A page of the bundle under the node's own origin, signed in by its token."""

    def answer(route: Route) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        isolated = {
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-embedder-policy": "require-corp",
        }
        if name.endswith(".js"):
            kind = {"content-type": "text/javascript"}
            route.fulfill(path=bundled / name, headers=isolated | kind)
        else:
            html = '<!doctype html><body><script type="module" src="main.js"></script>'
            route.fulfill(body=html, headers=isolated | {"content-type": "text/html"})

    with chromium.new_context() as context:
        opened = context.new_page()
        context.route("**/bundled/*", answer)
        opened.goto(f"{api_node.url}/?token={api_node.token}")
        opened.goto(f"{api_node.url}/bundled/page")
        expect(opened.locator("body")).to_have_text("ready")
        yield opened


@pytest.mark.nightly
def test_a_bundled_upload_reaches_a_node_through_the_packages_worker(
    page: Page, bundled: Path, api_node: RunningNode
) -> None:
    assert len(list(bundled.glob("*.js"))) == 2, "the worker is a file of its own"
    workers: list[str] = []
    page.on("worker", lambda worker: workers.append(worker.url))
    dataset = page.evaluate("() => send('ships.csv', 'ship,tons\\nann,3\\nbob,4\\n')")
    assert len(workers) == 1
    with api_node.session() as session:
        (job,) = session.jobs()
        session.job(job.id).wait()
        assert session.dataset(dataset).name == "ships"


@pytest.mark.nightly
def test_a_bundled_page_reads_a_ring_and_has_the_clients_of_the_tree(page: Page) -> None:
    assert page.evaluate("() => ring()") == [4, 5]
    assert page.evaluate("() => elkyn") == ["function", "function"]
