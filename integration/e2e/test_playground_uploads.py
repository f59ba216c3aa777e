"""Uploads that are interrupted in the page: reloads, other files, no network, a node that restarts."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from e2e.browser_site import INSECURE_HOST, Site, Watched, platform, running_site
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PARTS_URL = re.compile(r"/api/uploads/[^/]+/parts/\d+$")
PARTS = 12
PART_BYTES = 256 * 1024
# Measured: 318 MB, of which 126 MB are Chromium's program. With the whole file it would be over 2 GB.
RENDERER_BYTES_MAX = 350_000_000
# A browser gives such handles only to a user who chooses files; the origin's own files are as good.
PICKER = """
async ([name, text]) => {
  const folder = await navigator.storage.getDirectory()
  const handle = await folder.getFileHandle(name, { create: true })
  const stream = await handle.createWritable()
  await stream.write(text)
  await stream.close()
  window.showOpenFilePicker = async () => [handle]
}
"""


class HeldParts:
    """Lets some parts of uploads pass and holds the others, so that an upload stays in the middle.

    Args:
        context: The browser's context.
        passed: How many parts pass.
    """

    def __init__(self, context: BrowserContext, passed: int) -> None:
        self.sent: set[str] = set()
        self._context = context
        self._passed = passed
        self._held: list[Route] = []
        context.route(PARTS_URL, self._decide)

    def _decide(self, route: Route) -> None:
        if len(self.sent) >= self._passed:
            self._held.append(route)
            return
        self.sent.add(route.request.url)
        route.continue_()

    def wait(self, page: Page) -> None:
        """Wait until the last part that passes has been let through."""
        while len(self.sent) < self._passed or not self._held:
            page.wait_for_timeout(20)

    def fail(self) -> None:
        """End the held requests without an answer, and hold no more."""
        self._passed = 1 << 30
        for route in self._held:
            route.abort("internetdisconnected")
        self._held.clear()

    def release(self) -> None:
        """Hold no more parts."""
        self._context.unroute(PARTS_URL, self._decide)
        self._held.clear()


@pytest.fixture
def numbers(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a CSV file of twelve parts with this name."""

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.csv"
        rows = PARTS * PART_BYTES // 16 - 1
        path.write_text("n\n" + "".join(f"{i:015}\n" for i in range(rows)))
        return path

    return make


@contextmanager
def interrupted(page: Page, site: Site, path: Path) -> Iterator[HeldParts]:
    """Begin an upload whose fifth part and those after it are held."""
    page.goto(f"{site.url}/data/")
    held = HeldParts(page.context, 4)
    page.set_input_files("input[type=file]", path)
    held.wait(page)
    yield held
    held.release()


def reload(page: Page) -> None:
    page.once("dialog", lambda dialog: dialog.accept())  # the page warns before it is left
    page.reload()


def left(page: Page) -> Locator:
    return page.get_by_role("region", name="Unfinished uploads")


def complete(page: Page, name: str) -> None:
    """Expect the table with all rows of the file."""
    rows = PARTS * PART_BYTES // 16 - 1
    expect(page.get_by_role("row", name=name)).to_contain_text(f"{rows:,}", timeout=60_000)


def test_after_a_reload_the_same_file_goes_on_and_another_is_refused(
    page: Page, site: Site, numbers: Callable[[str], Path], tmp_path: Path, watched: Watched
) -> None:
    path = numbers("torn")
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "torn.csv"
    other.write_bytes(path.read_bytes()[:-16] + b"999999999999999\n")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    with interrupted(page, site, path) as held:
        reload(page)
        expect(left(page)).to_contain_text("torn.csv")
        expect(left(page)).to_contain_text(re.compile(r"[1-3]\d % · .* of 3\.0 MiB received"))
    resent: set[str] = set()
    page.context.on("request", lambda r: resent.add(r.url) if "/parts/" in r.url else None)
    page.get_by_label("The file torn.csv").set_input_files(other)
    refused = left(page).get_by_role("alert")
    expect(refused).to_contain_text("This is another file")
    expect(refused).to_contain_text("its content is another one")
    assert resent == set()
    page.get_by_label("The file torn.csv").set_input_files(path)
    complete(page, "torn")
    expect(left(page)).to_have_count(0)
    assert len(resent) < PARTS
    assert len(resent | held.sent) == PARTS
    page.reload()
    complete(page, "torn")
    expect(left(page)).to_have_count(0)


def test_without_a_network_an_upload_waits_and_then_goes_on(
    page: Page, site: Site, numbers: Callable[[str], Path], watched: Watched
) -> None:
    with interrupted(page, site, numbers("offline")) as held:
        page.context.set_offline(True)
        held.fail()
        expect(page.get_by_text("This computer is offline")).to_be_visible()
        page.context.set_offline(False)
        complete(page, "offline")
    watched.complaints.clear()  # of the requests that had no network


@pytest.mark.nightly
def test_a_stored_handle_goes_on_without_choosing_the_file(
    page: Page, site: Site, numbers: Callable[[str], Path]
) -> None:
    path = numbers("handled")
    page.goto(f"{site.url}/data/")
    page.evaluate(PICKER, [path.name, path.read_text()])
    held = HeldParts(page.context, 4)
    page.get_by_role("button", name="Upload files").click()
    held.wait(page)
    reload(page)
    held.release()
    page.get_by_role("button", name="Continue handled").click()
    complete(page, "handled")
    assert len(held.sent) == 4


@pytest.mark.nightly
def test_a_handle_whose_file_is_gone_asks_for_the_file(
    page: Page, site: Site, numbers: Callable[[str], Path]
) -> None:
    path = numbers("moved")
    page.goto(f"{site.url}/data/")
    page.evaluate(PICKER, [path.name, path.read_text()])
    held = HeldParts(page.context, 4)
    page.get_by_role("button", name="Upload files").click()
    held.wait(page)
    reload(page)
    held.release()
    page.evaluate("async () => (await navigator.storage.getDirectory()).removeEntry('moved.csv')")
    page.get_by_role("button", name="Continue moved").click()
    expect(left(page).get_by_role("alert")).to_contain_text("moved.csv is not where it was")
    expect(page.get_by_role("button", name="Choose moved.csv again")).to_be_visible()
    page.get_by_role("button", name="Discard moved").click()
    expect(left(page)).to_have_count(0)
    headers = {"Authorization": f"Bearer {site.token}"}
    upload = next(iter(held.sent)).split("/")[-3]
    assert httpx.get(f"{site.url}/api/uploads/{upload}", headers=headers).status_code == 404


@pytest.mark.nightly
def test_another_tab_does_not_list_what_this_one_sends(
    page: Page, site: Site, numbers: Callable[[str], Path], context: BrowserContext
) -> None:
    sender, other = context.new_page(), page
    with interrupted(sender, site, numbers("tabs")):
        other.goto(f"{site.url}/data/")
        expect(other.get_by_role("heading", name="Tables")).to_be_visible()
        other.wait_for_load_state("networkidle")
        expect(left(other)).to_have_count(0)
        sender.close()
        other.reload()
        expect(left(other)).to_contain_text("tabs.csv")
        other.get_by_role("button", name="Discard tabs").click()
        expect(left(other)).to_have_count(0)


@pytest.mark.nightly
def test_an_insecure_origin_goes_on_too(
    browser: Browser, site: Site, numbers: Callable[[str], Path]
) -> None:
    """It has neither crypto.subtle nor locks nor file handles."""
    path = numbers("insecure_torn")
    there = Site(site.data, f"http://{INSECURE_HOST}:{site.port}", site.token, site.pid)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{there.url}/?token={there.token}")
        assert not page.evaluate("isSecureContext")
        with interrupted(page, there, path):
            reload(page)
            expect(left(page)).to_contain_text(path.name)
        page.get_by_label(f"The file {path.name}").set_input_files(path)
        complete(page, "insecure_torn")


@pytest.mark.nightly
def test_a_node_that_is_killed_and_started_again_gets_the_rest(
    browser: Browser, exported: None, tmp_path: Path, numbers: Callable[[str], Path]
) -> None:
    path = numbers("restarted")
    with running_site(tmp_path / "data") as site, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site.url}/?token={site.token}")
        with interrupted(page, site, path) as held:
            os.kill(site.pid, signal.SIGKILL)
            while psutil.pid_exists(site.pid):
                page.wait_for_timeout(20)
            held.fail()
            expect(page.get_by_text("The node cannot be reached; again in")).to_be_visible()
        with running_site(tmp_path / "data", port=site.port):
            complete(page, "restarted")
            assert "restarted" in platform("datasets", data=site.data)


def write_rows(path: Path, blocks: int) -> None:
    """Write a CSV file of blocks of 1,024 rows and a mebibyte."""
    block = b"".join(b"%d,%b\n" % (row % 10, b"x" * 1021) for row in range(1024))
    with path.open("wb") as file:
        file.write(b"n,text\n")
        for _ in range(blocks):
            file.write(block)


class RendererMemory:
    """Samples the resident memory of the browser's renderers from outside, for the length of a `with`.

    The browser is a child of this process. `peak` is the most that one renderer had, in bytes.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.25):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "--type=renderer" in process.cmdline():
                        self.peak = max(self.peak, process.memory_info().rss)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_gigabytes_with_a_reload_in_the_middle_arrive_whole(
    browser: Browser, exported: None, tmp_path: Path
) -> None:
    path = tmp_path / "large.csv"
    with (
        running_site(tmp_path / "data", part_bytes="8MiB") as site,
        browser.new_context() as context,
        RendererMemory() as memory,
    ):
        page = context.new_page()
        page.set_default_timeout(180_000)  # 2 GB that were just written keep the disk busy
        page.goto(f"{site.url}/?token={site.token}")
        page.goto(f"{site.url}/data/")
        write_rows(path, blocks=2048)
        assert path.stat().st_size > 2 << 30
        page.set_input_files("input[type=file]", path)
        expect(page.get_by_text(re.compile(r"[4-9]\d % · "))).to_be_visible(timeout=600_000)
        reload(page)
        expect(left(page)).to_contain_text(re.compile(r"[3-9]\d % · "))
        page.get_by_label("The file large.csv").set_input_files(path)
        expect(page.get_by_text(re.compile(r"went on · [3-9]\d % · "))).to_be_visible()
        row = page.get_by_role("row", name="large")
        expect(row).to_contain_text(f"{2048 * 1024:,}", timeout=900_000)
    path.unlink()
    assert 0 < memory.peak <= RENDERER_BYTES_MAX
