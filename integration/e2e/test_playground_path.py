"""The main job in the browser: a file becomes a table, answers SQL, and runs through a pipeline."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from e2e.browser_site import ROWS, SLOW, Site, Watched, executors_held
from playwright.sync_api import BrowserContext, Locator, Page, expect

pytestmark = pytest.mark.e2e

# Collects every value that progress bars ever showed, however short their life.
_RECORD = """() => {
  window.shown = []
  const look = () => {
    for (const bar of document.querySelectorAll('[role=progressbar][aria-valuenow]'))
      window.shown.push(Number(bar.getAttribute('aria-valuenow')))
  }
  new MutationObserver(look).observe(document.body, {
    subtree: true, childList: true, attributes: true, characterData: true,
  })
  look()
}"""


def percentages(page: Page) -> list[int]:
    """What the page's progress bars have shown since `_RECORD`."""
    shown: list[int] = page.evaluate("() => window.shown")
    return shown


def run_sql(page: Page, sql: str) -> Locator:
    """Type a query, run it by key, and return the grid of its answer."""
    editor = page.get_by_role("textbox", name="SQL")
    editor.click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(sql)
    page.keyboard.press("ControlOrMeta+Enter")
    return page.get_by_role("grid", name="Result")


def test_upload_then_sql_then_job(page: Page, site: Site, harbours: Path) -> None:
    page.goto(f"{site.url}/data/")
    page.evaluate(_RECORD)
    page.set_input_files("input[type=file]", harbours)
    row = page.get_by_role("row", name="harbours")
    expect(row).to_contain_text(f"{ROWS:,}")
    percent = percentages(page)
    assert percent
    assert max(percent) <= 100

    row.get_by_role("link", name="harbours", exact=True).click()
    expect(page.get_by_role("heading", name="harbours", level=1)).to_be_visible()
    columns = page.get_by_role("region", name="Columns")
    expect(columns.get_by_role("row", name=re.compile("^tons"))).to_contain_text("1008")
    expect(page.get_by_role("grid", name="First rows of harbours")).to_contain_text("Hobart")
    expect(page.get_by_text("How the file was read")).to_be_visible()

    page.get_by_role("link", name="Query").click()
    grid = run_sql(page, "select port, count(*) as n from harbours group by port order by port")
    expect(grid.get_by_role("row")).to_have_count(5)
    expect(grid).to_contain_text(re.compile(rf"Bergen.*{ROWS // 4}"))

    page.goto(f"{site.url}/data/")
    page.get_by_role("link", name="harbours", exact=True).click()
    form = page.locator("form", has=page.get_by_text("For each"))
    form.get_by_label("For each").select_option("port")
    form.get_by_label("Compute").select_option("sum")
    form.get_by_label("Column").select_option("tons")
    page.evaluate(_RECORD)
    job = page.get_by_role("article", name="Pipeline over harbours")
    state = job.get_by_role("heading", level=2)
    with executors_held(site):
        form.get_by_role("button", name="Run as a job").click()
        expect(state).to_contain_text(re.compile("queued|running"))
    expect(state).to_contain_text("done")
    expect(job.get_by_role("grid")).to_contain_text("sum_tons")
    expect(job.get_by_text(re.compile(r"\d of \d tasks?"))).to_be_visible()
    assert max(percentages(page), default=0) <= 100


@pytest.mark.nightly
def test_replacing_is_offered_for_a_name_in_use(
    page: Page, site: Site, watched: Watched, tmp_path: Path
) -> None:
    page.goto(f"{site.url}/data/")
    file = tmp_path / "existing.csv"
    file.write_text("a\n1\n")
    page.set_input_files("input[type=file]", file)
    row = page.get_by_role("row", name="existing")
    expect(row).to_be_visible()
    file.write_text("a\n1\n2\n")
    page.set_input_files("input[type=file]", file)
    conflict = page.get_by_text("There is a table of this name already")
    expect(conflict).to_be_visible()
    page.get_by_role("button", name="Replace it").click()
    expect(conflict).to_be_hidden()
    expect(row.get_by_role("cell").nth(1)).to_have_text("2")
    watched.expect("status of 409")


def test_a_table_is_deleted_only_after_asking(page: Page, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "doomed.csv"
    file.write_text("a\n1\n")
    page.goto(f"{site.url}/data/")
    page.set_input_files("input[type=file]", file)
    page.get_by_role("button", name="Delete doomed").click()
    dialog = page.get_by_role("dialog", name="Delete doomed?")
    dialog.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("row", name="doomed")).to_be_visible()
    page.get_by_role("button", name="Delete doomed").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("row", name="doomed")).to_be_hidden()


@pytest.mark.nightly
def test_a_file_that_cannot_be_read_says_why(page: Page, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "ragged.csv"
    file.write_text("a,b\n1,2\n3\n4,5,6\n")
    page.goto(f"{site.url}/data/")
    page.get_by_role("button", name="How files are read").click()
    page.get_by_label("Strict").check()
    page.set_input_files("input[type=file]", file)
    trouble = page.get_by_role("alert").filter(has_text="line")
    expect(trouble).to_be_visible()
    expect(page.get_by_role("row", name="ragged")).to_be_hidden()


@pytest.mark.nightly
def test_a_broken_upload_resumes_after_a_reload(page: Page, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "broken.csv"
    file.write_text("n\n" + "".join(f"{i:015}\n" for i in range(1_000_000)))
    parts = -(-file.stat().st_size // (256 * 1024))
    sent: list[str] = []
    page.context.on("requestfinished", lambda r: sent.append(r.url) if "/parts/" in r.url else None)
    page.goto(f"{site.url}/data/")
    page.set_input_files("input[type=file]", file)
    page.get_by_role("button", name="Pause broken").click()
    expect(page.get_by_text("Paused")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())  # the page warns before it is left
    page.reload()
    before = len(set(sent))
    assert 0 < before < parts
    sent.clear()
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_role("row", name="broken")).to_contain_text("1,000,000")
    assert len(set(sent)) < parts


def ask_without_waiting(site: Site, sql: str) -> socket.socket:
    """Send a query; closing the socket cancels it."""
    address = urlsplit(site.url)
    assert address.hostname is not None
    assert address.port is not None
    body = json.dumps({"sql": sql})
    client = socket.create_connection((address.hostname, address.port))
    client.sendall(
        f"POST /api/query HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: Bearer {site.token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    return client


@pytest.mark.nightly
def test_a_job_is_cancelled_from_its_page(
    page: Page, context: BrowserContext, site: Site, loaded: str
) -> None:
    busy = [context.new_page() for _ in range(2)]  # as many as there are executors
    for each in busy:
        each.goto(f"{site.url}/sql/?q={quote(SLOW)}")
        each.get_by_role("button", name="Run").click()
        expect(each.get_by_text("Running for")).to_be_visible()
    page.goto(f"{site.url}/data/?id={loaded}")
    with ExitStack() as queue:
        # Each of these has a second in the executor that is kept for short work, before the job.
        for _ in range(15):
            queue.enter_context(ask_without_waiting(site, SLOW))
        page.get_by_role("button", name="Run as a job").click()
        job = page.get_by_role("article")
        job.get_by_role("button", name="Cancel").click()
        expect(job.get_by_role("heading", level=2)).to_contain_text("cancelled")
    for each in busy:
        each.get_by_role("button", name="Cancel").first.click()
        expect(each.get_by_text("You stopped the query")).to_be_visible()
