"""The page Compute: consent, joining, limits, pausing and leaving, and the list of workers."""

from __future__ import annotations

import re

import pytest
from e2e.browser_site import Site, violations
from e2e.compute_tabs import rows_of, until
from playwright.sync_api import Page, expect

from elytra import Elytra, count
from sennit.client import Session

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_a_tab_computes_after_consent_and_pauses_and_leaves(
    page: Page, site: Site, loaded: str
) -> None:
    page.goto(f"{site.url}/compute/")
    status = page.get_by_role("region", name="This tab").get_by_role("status")
    expect(page.get_by_text("No workers are connected")).to_be_visible()
    page.get_by_role("button", name="Compute for this node").click()
    dialog = page.get_by_role("dialog", name="Let this tab compute?")
    expect(dialog).to_contain_text(site.url.removeprefix("http://"))
    assert violations(page) == []
    dialog.get_by_role("button", name="Not now").click()
    expect(status).to_have_text("not joined")

    page.get_by_role("slider", name="Processor time").fill("95")
    page.get_by_role("button", name="Compute for this node").click()
    dialog.get_by_role("button", name="Compute").click()
    expect(status).to_have_text("connected")
    expect(page.get_by_text(re.compile(r"^Threads computing\s*0 of [1-9]"))).to_be_visible()
    with Elytra(site.url, token=site.token) as client:
        groups = client.remote(loaded).group_by("port").agg(n=count())
        assert rows_of(groups, "browser") == rows_of(groups, "local")
    expect(page.get_by_text(re.compile(r"^Tasks done\s*[1-9]"))).to_be_visible()
    workers = page.get_by_role("group", name="Workers")
    expect(workers.get_by_role("row").filter(has_text="tab")).to_contain_text("sennit-js")
    assert violations(page) == []

    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused: by you")).to_be_visible()
    expect(workers).to_contain_text("paused")
    page.get_by_role("button", name="Continue").click()
    expect(workers).to_contain_text("connected")
    # Another page of the app is the same tab.
    page.get_by_role("link", name="Storage").click()
    page.get_by_role("link", name="Compute").click()
    expect(status).to_have_text("connected")
    page.get_by_role("button", name="Leave").click()
    expect(status).to_have_text("not joined")
    with Session.open(site.url, token=site.token, data=None) as session:
        until(page, lambda: not session.workers.show()["workers"])


@pytest.mark.nightly
def test_limits_outlast_a_reload_and_a_cap_pauses(page: Page, site: Site, loaded: str) -> None:
    page.goto(f"{site.url}/compute/")
    page.get_by_label("Compute while this tab is hidden").uncheck()
    page.evaluate("""() => {
      const rules = JSON.parse(localStorage.getItem('sennit.compute.rules'))
      localStorage.setItem('sennit.compute.rules', JSON.stringify({ ...rules, capMebibytes: 1 }))
      localStorage.setItem('sennit.compute.consent', '2')
    }""")
    page.reload()
    expect(page.get_by_label("Compute while this tab is hidden")).not_to_be_checked()
    expect(page.get_by_label("Data in this tab")).to_have_value("1")
    page.get_by_role("button", name="Compute for this node").click()
    status = page.get_by_role("region", name="This tab").get_by_role("status")
    expect(status).to_have_text("connected")
    expect(page.get_by_text(re.compile(r"^Threads computing\s*0 of [1-9]"))).to_be_visible()
    with Elytra(site.url, token=site.token) as client:
        rows = client.remote(loaded).limit(50_000)  # its input is over 1 MiB
        assert rows_of(rows, "browser") == rows_of(rows, "local")
    expect(page.get_by_text("Paused: data cap")).to_be_visible()
    page.get_by_label("Data in this tab").select_option("1024")
    expect(status).to_have_text("connected")
    page.evaluate("""() => {
      Object.defineProperty(document, 'hidden', { value: true, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }""")
    expect(page.get_by_text("Paused: tab hidden")).to_be_visible()
