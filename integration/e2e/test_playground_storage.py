"""The storage page: what tables store, views, and a task of maintenance that is run now."""

from __future__ import annotations

import re

import pytest
from e2e.browser_site import Site
from playwright.sync_api import Page, expect

import sennit

pytestmark = pytest.mark.e2e


def test_stored_tables_views_and_maintenance_are_shown(page: Page, site: Site, loaded: str) -> None:
    with sennit.connect(site.url, token=site.token) as session:
        session.sql("CREATE TABLE crates AS SELECT 0 AS a")
        for number in range(1, 9):
            session.sql(f"INSERT INTO crates VALUES ({number})")
        session.sql("CREATE VIEW few_crates AS SELECT a FROM crates WHERE a < 3")
    page.goto(f"{site.url}/storage/")
    tables = page.get_by_role("group", name="Stored tables")
    row = tables.get_by_role("row").filter(has_text="crates")
    expect(row).to_contain_text("9 (9 small)")
    expect(tables).to_contain_text(loaded)
    views = page.get_by_role("group", name="Views")
    expect(views).to_contain_text(re.compile("SELECT a FROM crates", re.IGNORECASE))

    page.get_by_role("button", name="Run compact now").click()
    expect(row).not_to_contain_text("small", timeout=20_000)
    compact = page.get_by_role("group", name="Tasks").get_by_role("row").filter(has_text="compact")
    expect(compact).to_contain_text("just now")
