"""The pages over large data: long results in pages of rows, and the profile of wide tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.browser_site import Site, Watched, platform
from playwright.sync_api import Page, expect

import sennit
from elytra import Job

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROWS = 1_200_000  # more than one grid shows


@pytest.fixture(scope="session")
def session(site: Site) -> Iterator[sennit.Session]:
    with sennit.connect(site.url, token=site.token) as opened:
        yield opened


@pytest.fixture(scope="session")
def long_job(site: Site, session: sennit.Session, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose result has more rows than a page can hold."""
    file = tmp_path_factory.mktemp("large") / "numbers.parquet"
    labels = pa.array([f"row {n}" for n in range(ROWS)])
    pq.write_table(pa.table({"n": range(ROWS), "label": labels}), file)
    platform("put", str(file), data=site.data)
    job = session.pipeline("numbers").select("n", "label").submit()
    job.wait(60)
    return job


def row(page: Page, number: int, text: str) -> None:
    """Expect a row of the grid by the number in its margin."""
    found = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=str(number)))
    expect(found.first).to_contain_text(text)


@pytest.mark.nightly
def test_a_result_of_a_million_rows_can_be_scrolled_to_its_end(
    page: Page, site: Site, long_job: Job
) -> None:
    page.goto(f"{site.url}/jobs/?id={long_job.id}")
    grid = page.get_by_role("grid")
    row(page, 1, "row 0")
    grid.focus()
    page.keyboard.press("Control+End")
    row(page, 1_000_000, "row 999999")
    page.get_by_role("button", name="Rows after these").click()
    expect(page.get_by_text("Rows 1,000,001 to 1,200,000 of 1,200,000")).to_be_visible()
    row(page, 1_000_001, "row 1000000")
    page.get_by_role("grid").focus()
    page.keyboard.press("Control+End")
    row(page, ROWS, f"row {ROWS - 1}")
    assert page.get_by_role("row").count() < 60


@pytest.mark.nightly
def test_a_page_holds_few_rows_of_a_long_result(page: Page, site: Site, long_job: Job) -> None:
    sizes: list[int] = []

    def note(url: str) -> None:
        if found := re.search(r"/result\?offset=\d+&limit=(\d+)", url):
            sizes.append(int(found[1]))

    page.on("request", lambda request: note(request.url))
    page.goto(f"{site.url}/jobs/?id={long_job.id}")
    row(page, 1, "row 0")
    page.get_by_role("grid").focus()
    for _ in range(3):
        page.keyboard.press("Control+End")
        row(page, 1_000_000, "row 999999")
        page.keyboard.press("Control+Home")
        row(page, 1, "row 0")
    assert max(sizes) <= 500
    assert sum(sizes) < 10_000


def test_values_of_every_kind_and_long_rows_are_shown(
    page: Page, site: Site, session: sennit.Session, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "float": pa.array([float("nan"), float("inf"), 0.1]),
            "money": pa.array([Decimal("1.00"), Decimal("2.00"), None]),
            "big": pa.array([2**60, 1, 2]),
            "list": [[1, None], [], None],
            "long": ["x" * 10_000] * 3,
        }
    )
    pq.write_table(table, tmp_path / "kinds.parquet")
    session.put(tmp_path / "kinds.parquet")
    job = session.pipeline("kinds").submit()
    job.wait(60)
    page.goto(f"{site.url}/jobs/?id={job.id}")
    first = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="1"))
    for text in ("NaN", "1.00", str(2**60), "[1,null]", "xxx…"):
        expect(first.first).to_contain_text(text)


@pytest.fixture(scope="session")
def wide(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table with 1,500 columns."""
    file = tmp_path_factory.mktemp("wide") / "many_columns.csv"
    lines = [",".join(f"c{n}" for n in range(1500))]
    lines += [",".join(str(n * at % 997) for n in range(1500)) for at in range(300)]
    file.write_text("\n".join(lines) + "\n")
    platform("put", str(file), data=site.data)
    return "many_columns"


@pytest.mark.nightly
def test_the_profile_of_a_wide_table_moves_and_can_be_cancelled_and_continued(
    page: Page, site: Site, wide: str
) -> None:
    page.goto(f"{site.url}/data/?id={wide}")
    page.get_by_role("button", name="Profile").click()
    bar = page.get_by_role("progressbar", name="Profiling the columns")
    expect(bar).to_be_visible()
    expect(
        page.get_by_role("status").filter(has_text=re.compile(r"Profiling: [1-9]"))
    ).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    stopped = page.get_by_text(re.compile(r"Cancelled after [1-9][\d,]* of 1,500 columns"))
    expect(stopped).to_be_visible()
    page.get_by_role("button", name="Continue the profile").click()
    expect(bar).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(stopped).to_be_visible()


def test_a_profile_says_what_it_found_and_how_it_failed(
    page: Page, site: Site, loaded: str, watched: Watched
) -> None:
    page.goto(f"{site.url}/data/?id={loaded}")
    page.get_by_role("button", name="Profile").click()
    expect(page.get_by_text("Profile of 5 of 5 columns")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("row", name=re.compile("^port"))).to_contain_text("4")
    expect(page.get_by_role("row", name=re.compile("^tons"))).to_contain_text("503.783")
    timed_out = {"error": "too late", "code": "deadline-exceeded", "hint": None}
    page.route("**/api/query", lambda route: route.fulfill(status=504, json=timed_out))
    page.goto(f"{site.url}/data/?id={loaded}")
    page.get_by_role("button", name="Profile").click()
    expect(page.get_by_text("Out of time after 0 of 5 columns")).to_be_visible()
    watched.complaints.clear()


@pytest.mark.nightly
def test_only_some_columns_of_a_wide_table_are_listed_until_requested(
    page: Page, site: Site, wide: str
) -> None:
    page.goto(f"{site.url}/data/?id={wide}")
    table = page.get_by_role("group", name="Columns")
    expect(table.get_by_role("row")).to_have_count(201)
    page.get_by_role("button", name="Show more").click()
    expect(table.get_by_role("row")).to_have_count(401)
    page.get_by_role("searchbox", name="Find a column").fill("c1499")
    expect(table.get_by_role("row")).to_have_count(2)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "path", ["/data", "/sql?q=select 1", "/jobs", "/data/index.html", "//sql/"]
)
def test_a_page_has_one_address(page: Page, site: Site, path: str) -> None:
    """Under another one React finds a page it did not export, and says so in the console."""
    page.goto(site.url + path)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    folder = "/" + path.strip("/").partition("?")[0].partition("/")[0] + "/"
    expect(page).to_have_url(re.compile(re.escape(site.url + folder) + r"(\?q=select.*)?$"))


def test_a_failed_upload_has_the_name_of_its_file(page: Page, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "torn.csv"
    file.write_bytes(b'a,b\n1,2\n"never closed,3\n')
    page.goto(f"{site.url}/data/")
    page.set_input_files("input[type=file]", file)
    uploads = page.get_by_role("region", name="Uploads")
    expect(uploads).to_contain_text("torn.csv")
    expect(uploads.get_by_role("alert")).to_be_visible()
    page.goto(f"{site.url}/jobs/")  # this page knows of the upload only from the node
    expect(page.get_by_role("heading", name=re.compile("Read in torn.csv"))).to_be_visible()
