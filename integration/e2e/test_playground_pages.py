"""What holds for every page: isolation, accessibility, themes, keys, the way in, failure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.browser_site import (
    INSECURE_HOST,
    Site,
    Watched,
    platform,
    running_site,
    violations,
)
from playwright.sync_api import Browser, BrowserContext, Page, expect

pytestmark = pytest.mark.e2e

PAGES = {
    "/": "Home", "/data/": "Data", "/sql/": "SQL", "/jobs/": "Jobs",
    "/compute/": "Compute", "/storage/": "Storage", "/network/": "Network",
}  # fmt: skip


def settle(page: Page) -> None:
    """Wait until the page is live and shows no placeholder."""
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)


@pytest.mark.sample(1)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_pages_are_accessible_and_isolated(
    page: Page, site: Site, loaded: str, path: str, theme: str
) -> None:
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
    page.goto(site.url + path)
    settle(page)
    assert page.evaluate("() => crossOriginIsolated")
    assert violations(page) == []


@pytest.mark.nightly
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_full_pages_are_accessible(page: Page, site: Site, loaded: str, theme: str) -> None:
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
    page.goto(f"{site.url}/data/?id={loaded}")
    settle(page)
    expect(page.get_by_role("grid")).to_contain_text("Hobart")
    assert violations(page) == []
    page.goto(f"{site.url}/sql/?q=select * from {loaded} limit 20")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("grid")).to_contain_text("Hobart")
    page.keyboard.press("Escape")
    assert violations(page) == []


def test_a_theme_is_stored_and_applied_before_the_first_paint(page: Page, site: Site) -> None:
    page.get_by_role("radio", name="Dark").click()
    dark = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    page.get_by_role("radio", name="Light").click()
    light = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    assert dark != light
    page.get_by_role("radio", name="Dark").click()
    page.goto(f"{site.url}/jobs/", wait_until="commit")
    page.wait_for_function("() => document.body !== null")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"


def test_keys_lead_to_every_page(page: Page) -> None:
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    for key, path in (
        ("d", "/data/"),
        ("j", "/jobs/"),
        ("c", "/compute/"),
        ("t", "/storage/"),
        ("n", "/network/"),
        ("h", "/"),
    ):
        page.locator("#content").focus()
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page).to_have_url(re.compile(re.escape(path) + "$"))
    page.keyboard.press("?")
    help_dialog = page.get_by_role("dialog", name="Keyboard")
    expect(help_dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(help_dialog).to_be_hidden()
    page.keyboard.press("Tab")


def test_all_tabs_of_a_browser_share_one_stream(
    page: Page, context: BrowserContext, site: Site
) -> None:
    settle(page)
    second = context.new_page()
    second.goto(f"{site.url}/jobs/")
    settle(second)
    devtools = context.browser.new_browser_cdp_session() if context.browser else None
    assert devtools is not None
    targets = devtools.send("Target.getTargets")["targetInfos"]
    shared = [each for each in targets if each["type"] == "shared_worker"]
    assert len(shared) == 1


def test_without_a_token_the_page_asks_for_it(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/sql/")
    expect(page.get_by_role("heading", name="This node wants to know who you are")).to_be_visible()
    page.get_by_label("Or paste the token").fill("snt_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").filter(has_text="That did not work")).to_be_visible()
    page.get_by_label("Or paste the token").fill(site.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("textbox", name="SQL")).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_plain_http_from_another_host_works_with_a_banner(
    context: BrowserContext, site: Site, tmp_path: Path
) -> None:
    page = context.new_page()
    page.goto(f"http://{INSECURE_HOST}:{site.port}/data/?token={site.token}")
    assert not page.evaluate("() => isSecureContext")
    page.goto(f"http://{INSECURE_HOST}:{site.port}/data/")
    expect(page.get_by_text("This connection is not secure.")).to_be_visible()
    file = tmp_path / "insecure.csv"
    file.write_text("word\nhashed without crypto.subtle\n")
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_role("row", name="insecure")).to_be_visible()


@pytest.fixture
def own_site(exported: None, tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path / "node") as started:
        yield started


def test_an_empty_node_shows_the_first_steps(browser: Browser, own_site: Site) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{own_site.url}/?token={own_site.token}")
        expect(page.get_by_role("list").first.get_by_role("heading")).to_have_text(
            ["Bring data", "Ask it in SQL", "Run a pipeline"]
        )
        page.goto(f"{own_site.url}/jobs/")
        expect(page.get_by_text("Nothing has run yet")).to_be_visible()
        page.goto(f"{own_site.url}/data/")
        expect(page.get_by_text("No tables yet")).to_be_visible()
        page.get_by_role("button", name="Load the sample").click()
        expect(page.get_by_role("row", name="voyages")).to_contain_text("20,000")
        page.goto("about:blank")


@pytest.mark.nightly
def test_a_node_that_goes_away_is_reported_and_found_again(
    browser: Browser, own_site: Site, watched: Watched
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{own_site.url}/?token={own_site.token}")
        settle(page)
        expect(page.get_by_text("Nothing has run yet.")).to_be_visible()
        platform("down", data=own_site.data)
        expect(page.get_by_text("The node cannot be reached.")).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("Offline"))).to_be_visible()
        with running_site(own_site.data, port=own_site.port):
            expect(page.get_by_text("Live", exact=True)).to_be_visible()
            expect(page.get_by_text("The node cannot be reached.")).to_be_hidden()
            page.goto("about:blank")


@pytest.mark.nightly
def test_a_page_that_does_not_exist_says_so(page: Page, site: Site, watched: Watched) -> None:
    page.goto(f"{site.url}/nowhere/")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    watched.expect("status of 404")
