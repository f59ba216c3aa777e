"""The SQL page: errors at their place, a grid for keys, cancelling, exporting, history."""

from __future__ import annotations

import pytest
from e2e.browser_site import ROWS, SLOW, Site, Watched
from playwright.sync_api import Locator, Page, expect

pytestmark = pytest.mark.e2e


@pytest.fixture
def sql(page: Page, site: Site, loaded: str) -> Page:
    page.goto(f"{site.url}/sql/")
    expect(page.get_by_role("textbox", name="SQL")).to_be_focused()
    return page


def ask(page: Page, text: str) -> Locator:
    """Replace the editor's text and run it by key; returns the grid."""
    page.get_by_role("textbox", name="SQL").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(text)
    page.keyboard.press("ControlOrMeta+Enter")
    return page.get_by_role("grid", name="Result")


def test_an_error_is_marked_at_its_place(sql: Page, watched: Watched) -> None:
    ask(sql, "select port,\n  avg(tonnes)\nfrom berths group by port")
    expect(sql.locator(".cm-lintRange-error")).to_have_text("tonnes")
    expect(sql.get_by_role("alert").filter(has_text="tonnes")).to_contain_text("tons")
    watched.expect("status of 400")


@pytest.mark.nightly
def test_only_the_statement_at_the_cursor_runs(sql: Page) -> None:
    grid = ask(sql, "select 'first' as a;\nselect 'second' as b;")
    expect(grid).to_contain_text("second")
    expect(grid).not_to_contain_text("first")


@pytest.mark.nightly
def test_the_grid_reaches_its_last_row_with_few_nodes(sql: Page) -> None:
    grid = ask(sql, "select berth, port, tons from berths order by berth limit 9000")
    expect(grid).to_have_attribute("aria-rowcount", "9001")
    grid.focus()
    sql.keyboard.press("ControlOrMeta+End")
    expect(grid.locator('[aria-rowindex="9001"]')).to_contain_text("8999")
    assert grid.get_by_role("row").count() < 80


@pytest.mark.nightly
def test_cells_are_copied_as_a_table(sql: Page) -> None:
    sql.context.grant_permissions(["clipboard-read", "clipboard-write"])
    grid = ask(sql, "select berth, port from berths order by berth limit 3")
    grid.get_by_role("gridcell", name="Hobart").click()
    sql.keyboard.press("Shift+ArrowDown")
    sql.keyboard.press("Shift+ArrowLeft")
    sql.keyboard.press("ControlOrMeta+c")
    expect(sql.get_by_text("4 cells copied")).to_be_visible()
    assert sql.evaluate("() => navigator.clipboard.readText()") == "0\tHobart\n1\tBergen"


def test_escape_cancels_a_query(sql: Page) -> None:
    ask(sql, SLOW)
    expect(sql.get_by_text("Running for")).to_be_visible()
    sql.keyboard.press("Escape")
    expect(sql.get_by_text("You stopped the query")).to_be_visible()
    expect(ask(sql, "select 42 as answer")).to_contain_text("42")


def test_a_cut_answer_says_so_and_its_export_is_whole(sql: Page) -> None:
    grid = ask(sql, "select berth from berths")
    expect(grid).to_have_attribute("aria-rowcount", "10001")
    expect(sql.get_by_text("Only the first 10,000 rows are shown")).to_be_visible()
    with sql.expect_download() as download:
        sql.get_by_role("button", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == ROWS + 1


@pytest.mark.nightly
def test_names_complete_as_one_types(sql: Page) -> None:
    sql.get_by_role("textbox", name="SQL").click()
    sql.keyboard.press("ControlOrMeta+a")
    sql.keyboard.type("select * from ber")
    option = sql.get_by_role("option", name="berths")
    expect(option).to_be_visible()
    sql.keyboard.press("Tab")
    expect(sql.get_by_role("textbox", name="SQL")).to_contain_text("from berths")


@pytest.mark.nightly
def test_history_outlives_the_page(sql: Page) -> None:
    expect(ask(sql, "select 'kept' as word")).to_contain_text("kept")
    sql.reload()
    sql.get_by_role("tab", name="History").click()
    entry = sql.get_by_role("tabpanel").get_by_role("button", name="select 'kept' as word")
    expect(entry).to_be_visible()
    expect(sql.get_by_role("textbox", name="SQL")).to_contain_text("select 'kept'")


def test_the_engine_can_be_chosen_and_is_shown(sql: Page, watched: Watched) -> None:
    grid = ask(sql, "select port, count(*) as n from berths group by port order by port")
    expect(grid).to_contain_text("Bergen")
    expect(sql.get_by_role("status").filter(has_text="DuckDB")).to_be_visible()
    sql.get_by_label("Engine").select_option("EM-√")
    ask(sql, "select port, count(*) as n from berths group by port order by port, n")
    expect(sql.get_by_role("status").filter(has_text="EM-√")).to_be_visible()
    ask(sql, "explain select port from berths")
    refused = sql.get_by_role("alert").filter(has_text="EM-√ answers SELECT statements")
    expect(refused).to_be_visible()
    watched.expect("status of")
