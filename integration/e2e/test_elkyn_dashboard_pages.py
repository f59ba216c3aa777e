"""What holds for every page of Elkyn's dashboard: the way in, accessibility, narrow windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.browser_site import violations
from elkyn_server import Served, running
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.e2e

LONG = "a_key_that_is_as_long_as_those_of_hash_functions_" + "0123456789abcdef" * 8
SIZES = {"wide": (1280, 860), "phone": (390, 844)}
TREE = {
    "users": {f"user{number:03}": {"age": number, "name": "Ann"} for number in range(130)},
    "list": [True, None, 1.5],
    "text": "words and " * 40,
    LONG: {LONG: {LONG: "v" * 150}},
}
RULES = '{"rules": {"users": {".indexOn": ["age"], ".read": "auth.uid === \'a\' && now > 1"}}}'


def show_tree(page: Page) -> None:
    page.click(f"button[aria-label='unfold {LONG}']")
    page.click(f"li[data-key={LONG}] > ul .fold")
    page.click("button[aria-label='unfold users']")
    expect(page.get_by_text("show 100 more")).to_be_visible()


def confirm_delete(page: Page) -> None:
    page.hover(f"li[data-key={LONG}] > .row")
    page.click(f"button[aria-label='delete {LONG}']")
    expect(page.get_by_role("button", name="Keep")).to_be_visible()


def edit_badly(page: Page) -> None:
    page.click("li[data-key=text] .value")
    page.fill("textarea", "no JSON " + LONG)
    page.keyboard.press("Enter")
    expect(page.locator(".problem")).to_be_visible()


def add_child(page: Page) -> None:
    page.click("text=Add child")
    expect(page.get_by_label("value as JSON")).to_be_visible()


def query(page: Page) -> None:
    page.click("text=Query")
    page.get_by_label("order by").select_option("child")
    page.get_by_label("path of the child").fill("name")
    page.get_by_label("range").select_option("between")
    page.click("text=Apply")
    expect(page.get_by_text("No child matches")).to_be_visible()


def search(page: Page) -> None:
    page.get_by_role("searchbox").fill("v")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(".found > li")).to_have_count(1)


def path_with_long_keys(page: Page) -> None:
    page.get_by_role("searchbox").fill(f"/{LONG}/{LONG}/{LONG}")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(".value.text")).to_be_visible()


def nothing(page: Page) -> None:
    page.get_by_role("searchbox").fill("/nowhere")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_text("There is nothing at this path")).to_be_visible()


def failed_read(page: Page) -> None:
    page.route("**/outline.json*", lambda route: route.abort())
    page.click("li[data-key=users] .fold")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.click("li[data-key=users] .key")
    expect(page.locator(".notice")).to_be_visible()


def rules(page: Page) -> None:
    page.click("#tab-rules")
    expect(page.locator(".painted .rule").first).to_be_visible()
    page.click("text=Format")
    page.locator("#try-path").fill(f"/users/{LONG}")
    page.get_by_role("button", name="Try", exact=True).click()
    expect(page.locator(".trace")).to_be_visible()


def wrong_rules(page: Page) -> None:
    page.click("#tab-rules")
    page.locator("textarea.source").fill('{"rules": {".read": "auth.uidd ==", "a.b": 1}}')
    expect(page.locator(".problems li").first).to_be_visible()


def activity(page: Page) -> None:
    page.click("#tab-activity")
    expect(page.locator(".tile", has_text="Event streams").locator("b")).to_have_text("1")


STATES: list[Callable[[Page], None]] = [
    show_tree,
    confirm_delete,
    edit_badly,
    add_child,
    query,
    search,
    path_with_long_keys,
    nothing,
    failed_read,
    rules,
    wrong_rules,
    activity,
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running(tmp_path_factory.mktemp("tree")) as served:
        served.client.put("/.json", json=TREE)
        served.client.put("/.settings/rules.json", content=RULES)
        yield served


def open_page(browser: Browser, size: str, theme: str) -> Page:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
    )
    return context.new_page()


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("() => document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.sample(1)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("third", range(3))
def test_every_page_is_accessible_and_fits_its_window(
    chromium: Browser, tree: Served, size: str, theme: str, third: int
) -> None:
    page = open_page(chromium, size, theme)
    page.goto(f"{tree.url}/index.html")
    expect(page.locator("#token")).to_be_focused()
    wrong: dict[str, object] = {"sign in": (violations(page), overflow(page))}
    page.fill("#token", tree.token)
    page.keyboard.press("Enter")
    for show in STATES[third::3]:
        page.goto("about:blank")
        page.unroute_all()
        page.goto(f"{tree.url}/index.html")
        expect(page.locator("li[data-key=users]")).to_be_visible()
        show(page)
        wrong[show.__name__] = (violations(page), overflow(page))
    page.context.close()
    assert {name: found for name, found in wrong.items() if found != ([], 0)} == {}


@pytest.mark.nightly
def test_the_printed_address_opens_the_dashboard_of_an_emulator_signed_in(
    chromium: Browser, tmp_path: Path
) -> None:
    with running(tmp_path / "emulator", "--emulator") as emulator:
        emulator.client.put("/users/ann.json?ns=shop", json={"age": 31})
        page = open_page(chromium, "wide", "light")
        page.goto(emulator.url)
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator("#emulator")).to_be_visible()
        expect(page.locator("#leave")).to_be_hidden()
        page.goto(f"{emulator.url}/users/ann?ns=shop")
        expect(page.locator("li[data-key=age] .value")).to_have_text("31")
        expect(page.locator("#namespace")).to_have_value("shop")
        page.context.close()


def test_the_printed_address_opens_the_sign_in_page_of_a_server(
    chromium: Browser, tree: Served
) -> None:
    page = open_page(chromium, "wide", "light")
    page.goto(tree.url)
    expect(page.locator("#sign-in")).to_contain_text("admin.token")
    page.context.close()


@pytest.mark.nightly
def test_the_tabs_move_with_the_arrow_keys(chromium: Browser, tree: Served) -> None:
    page = open_page(chromium, "wide", "light")
    page.goto(tree.url)
    page.fill("#token", tree.token)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("live")
    page.locator("#tab-data").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-rules")).to_be_focused()
    expect(page.locator("#rules")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#data")).to_be_visible()
    page.context.close()
