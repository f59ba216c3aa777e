"""The dashboard of `elkyn serve` in a real browser: signing in, the live tree, edits, rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elkyn_server import Served, running
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.e2e

USERS = {f"user{number:03}": {"age": number, "name": f"Name {number}"} for number in range(130)}
RULES = '{"rules": {"users": {"$uid": {".read": "auth.uid === $uid"}}}}'


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running(tmp_path_factory.mktemp("tree")) as served:
        yield served


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def page(chromium: Browser, tree: Served, errors: list[str]) -> Iterator[Page]:
    tree.client.put("/.json", json={"users": USERS, "title": "A tree"})
    with chromium.new_context(viewport={"width": 1180, "height": 820}) as context:
        opened = context.new_page()
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"{tree.url}/index.html")
        yield opened
    assert not errors


@pytest.fixture
def entered(page: Page, tree: Served) -> Page:
    page.fill("#token", tree.token)
    page.click("#door button")
    expect(page.locator("#live")).to_have_text("live")
    return page


def test_a_wrong_token_does_not_get_in(page: Page) -> None:
    page.fill("#token", "wrong")
    page.click("#door button")
    expect(page.locator("#message")).to_contain_text("does not let you in")
    expect(page.locator("#data")).to_be_hidden()


def test_children_unfold_by_pages(entered: Page) -> None:
    entered.click("button[aria-label='unfold users']")
    rows = entered.locator("li[data-key=users] > ul > li[data-key]")
    expect(rows).to_have_count(100)
    entered.click("text=show 100 more")
    expect(rows).to_have_count(130)


def test_what_others_write_shows_while_a_value_is_edited(entered: Page, tree: Served) -> None:
    entered.click("button[aria-label='unfold users']")
    entered.click("button[aria-label='unfold user001']")
    entered.click("li[data-key=user001] li[data-key=name] .value")
    entered.keyboard.press("End")
    entered.keyboard.type(" ")
    tree.client.put("/users/user001/age.json", json=777)
    expect(entered.locator("li[data-key=user001] li[data-key=age] .value")).to_have_text("777")
    entered.keyboard.press("ControlOrMeta+A")
    entered.keyboard.type('"Robert"')
    entered.keyboard.press("Enter")
    expect(entered.locator("li[data-key=user001] li[data-key=name] .value")).to_have_text(
        '"Robert"'
    )
    assert tree.client.get("/users/user001.json").json() == {"age": 777, "name": "Robert"}


def test_children_are_added_and_deleted(entered: Page, tree: Served) -> None:
    entered.click("text=Add")
    entered.fill("input[aria-label=key]", "fresh")
    entered.fill("textarea[aria-label='value as JSON']", '{"a": [1, 2]}')
    entered.keyboard.press("Enter")
    expect(entered.locator("li[data-key=fresh]")).to_be_visible()
    assert tree.client.get("/fresh.json").json() == {"a": [1, 2]}
    entered.hover("li[data-key=fresh]")
    entered.click("button[aria-label='delete fresh']")
    entered.click("li[data-key=fresh] >> text=Delete")
    expect(entered.locator("li[data-key=fresh]")).to_have_count(0)
    assert tree.client.get("/fresh.json").json() is None


def test_text_that_is_no_json_is_explained_and_kept(entered: Page) -> None:
    entered.click("li[data-key=title] .value")
    entered.fill("textarea", "no quotes")
    entered.keyboard.press("Enter")
    expect(entered.locator("#message")).to_contain_text("not JSON")
    expect(entered.locator("textarea")).to_have_value("no quotes")


def test_rules_are_tried_saved_and_refused_with_their_line(entered: Page, tree: Served) -> None:
    entered.click("#tab-rules")
    source = entered.locator("textarea.source")
    expect(source).not_to_have_value("")
    source.fill(RULES)
    entered.fill("#try-path", "/users/bob")
    entered.click("#rules button:text-is('Try')")
    expect(entered.locator(".verdict")).to_have_text("refused")
    entered.click("#rules button:text-is('Save')")
    expect(entered.locator("#rules [role=status]").first).to_contain_text("saved")
    source.fill('{"rules": {\n".read": "auth.uid ==="}}')
    entered.click("#rules button:text-is('Save')")
    expect(entered.locator(".problems")).to_contain_text("line 2")
    assert tree.client.get("/.settings/rules.json").text == RULES


def test_activity_counts_what_happens(entered: Page) -> None:
    entered.click("#tab-activity")
    streams = entered.locator(".tile", has_text="Event streams").locator("b")
    expect(streams).to_have_text("1")


def test_signing_out_forgets_the_token(entered: Page) -> None:
    entered.click("#leave")
    expect(entered.locator("#door")).to_be_visible()
    entered.reload()
    expect(entered.locator("#door")).to_be_visible()
