"""What the pages say of damaged tables, of answers that were cut, and of a node with no time or room."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from e2e.browser_site import Site, Watched, running_site
from playwright.sync_api import Browser, Page, Route, expect

import sennit
from elkyn import ElkynStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# More than a result ring holds comes before the row that fails, so some of it has left by then.
FAILS_AFTER_BATCHES = (
    "select cast(case when i = {at} then 'x' else '1' end as int) n, repeat('y', {width}) "
    "from range(1000000) t(i)"
)
LONG = "select sum(a.range * b.range) from range(100000000) a, range(100000) b"


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_row(data: Path) -> None:
    """Change the catalog row of the dataset `row` while the node is stopped."""
    catalog = data / "elkyn" / "sys" / "data.mdb"
    found = catalog.read_bytes()
    key = b"\xa3row\xa5owner"  # MessagePack: the name `row`, then the next key
    assert key in found
    catalog.write_bytes(found.replace(key, b"\xa3rox\xa5owner"))


@pytest.fixture(scope="module")
def damaged(exported: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node with a damaged shard, a damaged catalog row, and a dataset that is whole."""
    data = tmp_path_factory.mktemp("damaged")
    files = tmp_path_factory.mktemp("files")
    with running_site(data) as site, sennit.connect(site.url, token=site.token) as session:
        for name in ("whole", "row", "shard"):
            path = files / f"{name}.csv"
            path.write_text(f"city,km\n{name},1\nRome,2\n")
            session.put(path)
    with ElkynStore(data / "elkyn" / "sys", namespace="sys") as tree:
        (id_,) = (each["id"] for each in tree.get("/datasets").values() if each["name"] == "shard")
        manifest = next(iter(tree.get(f"/snapshots/{id_}").values()))["manifest"]
    objects = data / "lake" / "objects"
    described = json.loads((objects / manifest[:2] / manifest).read_bytes())
    shard = described["snapshot"]["shards"][0]["object"]
    flip(objects / shard[:2] / shard)
    damage_row(data)
    with running_site(data) as site:
        yield site


@pytest.fixture
def at_damaged(browser: Browser, damaged: Site, watched: Watched) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.on("console", watched.record)
        page.on("pageerror", lambda error: watched.complaints.append(f"uncaught: {error}"))
        page.goto(f"{damaged.url}/?token={damaged.token}")
        yield page
        page.goto("about:blank")
        assert watched.complaints == []


def ask(page: Page, site: Site, sql: str) -> None:
    """Open the SQL page and run a query."""
    page.goto(f"{site.url}/sql/")
    page.get_by_role("textbox", name="SQL").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(sql)
    page.keyboard.press("ControlOrMeta+Enter")


@pytest.mark.nightly
def test_a_table_is_shown_as_damaged_with_its_reason(
    at_damaged: Page, damaged: Site, watched: Watched
) -> None:
    page = at_damaged
    ask(page, damaged, "select * from shard")
    trouble = page.get_by_role("alert").filter(has_text="Stored data is damaged")
    expect(trouble).to_contain_text("chunk 0 of shard 0")
    expect(trouble).to_contain_text("platform verify")
    watched.expect("status of 500")

    page.goto(f"{damaged.url}/data/")
    shard = page.get_by_role("row", name=re.compile("^shard"))
    expect(shard).to_contain_text("Damaged")
    expect(shard).to_contain_text("chunk 0 of shard 0")
    row = page.get_by_role("row", name=re.compile("^row "))
    expect(row).to_contain_text("its catalog row")
    expect(page.get_by_role("row", name=re.compile("^whole"))).not_to_contain_text("Damaged")

    shard.get_by_role("link", name="shard", exact=True).click()
    notice = page.get_by_role("main").get_by_role("alert")
    expect(notice).to_contain_text("This table is damaged")
    expect(notice).to_contain_text("chunk 0 of shard 0")
    expect(page.get_by_role("button", name="Delete")).to_be_visible()
    page.goto(f"{damaged.url}/data/?id=row")
    expect(notice).to_contain_text("its catalog row")
    page.goto(f"{damaged.url}/data/?id=whole")
    expect(page.get_by_role("grid")).to_contain_text("Rome")


@pytest.mark.nightly
def test_a_damaged_table_can_be_deleted(at_damaged: Page, damaged: Site) -> None:
    page = at_damaged
    page.goto(f"{damaged.url}/data/?id=row")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("row", name=re.compile("^whole"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^row "))).to_have_count(0)


def test_an_answer_that_was_cut_has_the_nodes_reason(
    page: Page, site: Site, watched: Watched
) -> None:
    ask(page, site, FAILS_AFTER_BATCHES.format(at=9_000, width=2000))
    trouble = page.get_by_role("alert").filter(has_text="Could not convert string 'x' to INT32")
    expect(trouble).to_contain_text("This is not valid SQL")
    watched.expect("ERR_INCOMPLETE_CHUNKED_ENCODING")


@pytest.mark.nightly
def test_an_export_that_was_cut_has_the_nodes_reason(
    page: Page, site: Site, watched: Watched
) -> None:
    ask(page, site, FAILS_AFTER_BATCHES.format(at=900_000, width=20))
    expect(page.get_by_text("Only the first 10,000 rows are shown")).to_be_visible()
    page.get_by_role("button", name="CSV").click()
    trouble = page.get_by_role("alert").filter(has_text="The export failed")
    expect(trouble).to_contain_text("Could not convert string 'x' to INT32")
    watched.expect("ERR_INCOMPLETE_CHUNKED_ENCODING")


@pytest.fixture(scope="module")
def crowded(exported: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node where one request of each user may wait for an executor."""
    data = tmp_path_factory.mktemp("crowded")
    (data / "config.toml").write_text("[analytics]\nuser_queue_max = 1\n")
    with running_site(data) as site:
        yield site


@pytest.fixture
def at_crowded(browser: Browser, crowded: Site) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{crowded.url}/?token={crowded.token}")
        yield page


@pytest.mark.nightly
def test_a_query_that_ran_out_of_time_says_so(at_crowded: Page, crowded: Site) -> None:
    def shorten(route: Route) -> None:
        body: dict[str, object] = route.request.post_data_json or {}
        route.continue_(post_data=json.dumps(body | {"deadlineSeconds": 1}))

    at_crowded.route("**/api/query", shorten)
    ask(at_crowded, crowded, LONG)
    timed_out = at_crowded.get_by_role("alert").filter(has_text="It took too long")
    expect(timed_out).to_contain_text("The query did not finish within 1 s")


def wait_for_stats(site: Site, headers: dict[str, str], wanted: dict[str, int]) -> None:
    """Ask the node until its counts are these."""
    end = time.monotonic() + 60
    while True:
        found = httpx.get(f"{site.url}/api/stats", headers=headers).json()
        if wanted.items() <= found.items():
            return
        assert time.monotonic() < end, f"not {wanted}: {found}"


@pytest.mark.nightly
def test_a_node_with_a_full_queue_says_so(at_crowded: Page, crowded: Site) -> None:
    body = json.dumps({"sql": LONG})
    headers = {"Authorization": f"Bearer {crowded.token}", "Content-Type": "application/json"}
    with ExitStack() as others:
        for busy, waiting in ((1, 0), (2, 0), (2, 1)):
            client = others.enter_context(closing(HTTPConnection("127.0.0.1", crowded.port)))
            client.request("POST", "/api/query", body, headers)
            wait_for_stats(crowded, headers, {"busy": busy, "waiting": waiting})
        ask(at_crowded, crowded, "select 1")
        refused = at_crowded.get_by_role("alert").filter(has_text="The node is busy")
        expect(refused).to_contain_text("requests of the same user")
