"""The dashboard of `elkyn serve` in a real browser: signing in, the live tree, edits, rules."""

from __future__ import annotations

import re
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
    page.click("#sign-in button")
    expect(page.locator("#live")).to_have_text("live")
    return page


@pytest.mark.slow
def test_a_wrong_token_does_not_get_in(page: Page) -> None:
    page.fill("#token", "wrong")
    page.click("#sign-in button")
    expect(page.locator("#message")).to_contain_text("is not valid for this server")
    expect(page.locator("#data")).to_be_hidden()


@pytest.mark.nightly
def test_children_unfold_by_pages(entered: Page) -> None:
    entered.click("button[aria-label='unfold users']")
    rows = entered.locator("li[data-key=users] > ul > li[data-key]")
    expect(rows).to_have_count(100)
    entered.click("text=show 100 more")
    expect(rows).to_have_count(130)


def test_writes_of_others_show_while_a_value_is_edited(entered: Page, tree: Served) -> None:
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
    entered.click("text=Add child")
    entered.fill("input[aria-label=key]", "fresh")
    entered.fill("textarea[aria-label='value as JSON']", '{"a": [1, 2]}')
    entered.keyboard.press("Enter")
    expect(entered.locator("li[data-key=fresh]")).to_be_visible()
    assert tree.client.get("/fresh.json").json() == {"a": [1, 2]}
    entered.hover("li[data-key=fresh]")
    entered.click("button[aria-label='delete fresh']")
    entered.get_by_role("button", name="Delete", exact=True).click()
    expect(entered.locator("li[data-key=fresh]")).to_have_count(0)
    assert tree.client.get("/fresh.json").json() is None


@pytest.mark.nightly
def test_text_that_is_no_json_is_explained_and_kept(entered: Page, tree: Served) -> None:
    entered.click("li[data-key=title] .value")
    entered.fill("textarea", "no quotes")
    entered.keyboard.press("Enter")
    expect(entered.locator(".problem")).to_contain_text("not JSON")
    expect(entered.locator("textarea")).to_have_value("no quotes")
    entered.keyboard.type("!")
    expect(entered.locator(".problem")).to_be_hidden()  # with the text that caused it
    entered.keyboard.press("Enter")
    entered.click("text=Save it as text")
    expect(entered.locator("li[data-key=title] .value")).to_have_text('"no quotes!"')
    expect(entered.locator(".edit")).to_have_count(0)
    assert tree.client.get("/title.json").json() == "no quotes!"


@pytest.mark.nightly
def test_a_cancelled_edit_clears_its_error(entered: Page) -> None:
    entered.click("li[data-key=title] .value")
    entered.fill("textarea", "{")
    entered.keyboard.press("Enter")
    expect(entered.locator(".problem")).to_be_visible()
    entered.keyboard.press("Escape")
    expect(entered.get_by_role("alert").filter(has_text="JSON")).to_have_count(0)
    expect(entered.locator("li[data-key=title] .value")).to_be_focused()


@pytest.mark.nightly
def test_a_delete_is_confirmed_below_the_row_that_was_clicked(entered: Page) -> None:
    entered.click("button[aria-label='unfold users']")
    expect(entered.locator("li[data-key=users] > ul > li[data-key]")).to_have_count(100)
    entered.hover("li[data-key=users] > .row")
    entered.click("button[aria-label='delete users']")
    row, box = (
        entered.locator(f"li[data-key=users] > {part}").bounding_box() for part in (".row", ".edit")
    )
    assert row is not None
    assert box is not None
    assert 0 <= box["y"] - (row["y"] + row["height"]) < 10
    expect(entered.get_by_role("button", name="Keep")).to_be_focused()
    entered.keyboard.press("Escape")
    expect(entered.locator(".edit")).to_have_count(0)


@pytest.mark.nightly
def test_an_edit_and_unfolded_children_survive_writes_of_others(
    entered: Page, tree: Served
) -> None:
    entered.click("button[aria-label='unfold users']")
    entered.click("button[aria-label='unfold user001']")
    entered.click("li[data-key=user001] li[data-key=name] .value")
    entered.fill("textarea", '"half wri')
    tree.client.put("/users/user001.json", json={"name": "From others", "more": [1]})
    tree.client.put("/users/zoe.json", json={"name": "Zoe"})
    expect(entered.locator("li[data-key=users] > .row .count")).to_have_text("{ 131 children }")
    name = entered.locator("li[data-key=user001] li[data-key=name]")
    expect(name.locator(".value")).to_have_text('"From others"')
    expect(name.locator("textarea")).to_have_value('"half wri')
    expect(name.locator("textarea")).to_be_focused()


@pytest.mark.nightly
def test_counts_show_and_arrays_are_distinguished_from_maps(entered: Page, tree: Served) -> None:
    tree.client.put("/list.json", json=["a", "b"])
    tree.client.put("/map.json", json={"a": "b"})
    for key, count in (
        ("list", "[ 2 items ]"),
        ("map", "{ 1 child }"),
        ("users", "{ 130 children }"),
    ):
        expect(entered.locator(f"li[data-key={key}] > .row .count")).to_have_text(count)
    expect(entered.locator(".path .count")).to_have_text("{ 4 children }")


def test_a_query_shows_its_children_in_order_and_warns_of_a_missing_index(entered: Page) -> None:
    entered.click("li[data-key=users] .key")
    entered.click("text=Query")
    entered.get_by_label("order by").select_option("child")
    entered.get_by_label("path of the child").fill("age")
    entered.get_by_label("range").select_option("between")
    entered.get_by_label("value", exact=True).fill("40")
    entered.get_by_label("highest value").fill("60")
    entered.get_by_label("which end").select_option("last")
    entered.get_by_label("how many").fill("2")
    entered.click("text=Apply")
    rows = entered.locator(".tree > li")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("user059")
    expect(rows.first).to_contain_text("age: 59")
    expect(entered.locator(".hint")).to_contain_text('".indexOn": "age"')
    expect(entered.locator(".request")).to_have_text(
        'GET /users.json?orderBy="age"&startAt=40&endAt=60&limitToLast=2'
    )
    entered.click("text=Clear")
    expect(rows.first).to_contain_text("user000")
    expect(entered.locator(".hint")).to_be_hidden()


@pytest.mark.nightly
def test_a_search_finds_values_and_leads_to_them(entered: Page) -> None:
    search = entered.get_by_role("searchbox")
    search.fill("name 12")
    search.press("Enter")
    found = entered.locator(".found > li")
    expect(found).to_have_count(11)
    expect(found.first.locator(".key")).to_have_text("/users/user012/name")
    expect(found.first.locator(".value")).to_have_text('"Name 12"')
    found.first.locator(".key").click()
    expect(entered.locator(".path")).to_contain_text("/users/user012/name")
    entered.go_back()
    expect(entered.locator(".tree li[data-key=users]")).to_be_visible()
    entered.get_by_role("searchbox").fill("/users/user007")
    entered.get_by_role("searchbox").press("Enter")
    expect(entered.locator("li[data-key=age] .value")).to_have_text("7")


@pytest.mark.nightly
def test_a_value_too_large_for_a_text_area_is_not_put_into_one(entered: Page, tree: Served) -> None:
    tree.client.put("/large.json", json={f"k{number}": "x" * 9000 for number in range(130)})
    entered.click("li[data-key=large] .key")
    entered.click("text=Edit as JSON")
    expect(entered.locator("#message")).to_contain_text("too large to edit")
    expect(entered.locator("textarea")).to_have_count(0)
    entered.click("#tab-rules")
    expect(entered.locator("#message")).to_have_text("")


@pytest.mark.nightly
def test_a_failed_read_is_shown_until_it_works_again(entered: Page, tree: Served) -> None:
    entered.route("**/outline.json*", lambda route: route.abort())
    entered.click("li[data-key=users] .key")
    expect(entered.locator("#message")).to_contain_text("does not respond")
    entered.unroute("**/outline.json*")
    entered.go_back()
    expect(entered.locator("li[data-key=users]")).to_be_visible()
    expect(entered.locator("#message")).to_have_text("")


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
    expect(entered.locator(".gutter .error")).to_have_text("2")
    source.fill(RULES)
    expect(entered.locator(".problems li")).to_have_count(0)
    expect(entered.locator(".gutter .error")).to_have_count(0)
    assert tree.client.get("/.settings/rules.json").text == RULES


@pytest.mark.nightly
def test_rules_are_checked_while_one_types(entered: Page) -> None:
    entered.click("#tab-rules")
    source = entered.locator("textarea.source")
    source.fill('{"rules": {\n  ".read": "daata.exists()"}}')
    expect(entered.locator(".painted .error")).to_have_text("daata")
    expect(entered.locator(".gutter span")).to_have_text(["1", "2"])
    entered.click(".problems button")
    expect(source).to_be_focused()
    assert source.evaluate("(area) => area.selectionStart") == 24


@pytest.mark.nightly
def test_rules_are_formatted_and_the_way_back_is_undo(entered: Page) -> None:
    entered.click("#tab-rules")
    source = entered.locator("textarea.source")
    source.fill('{"rules":{".read":true /* all */}}')
    entered.click("text=Format")
    formatted = '{\n  "rules": {\n    ".read": true /* all */\n  }\n}\n'
    expect(source).to_have_value(formatted)
    source.press("ControlOrMeta+z")
    expect(source).to_have_value('{"rules":{".read":true /* all */}}')
    source.fill('{"rules":{')
    entered.click("text=Format")
    expect(entered.locator("#rules .problem").first).to_contain_text("Only complete rules")
    expect(source).to_have_value('{"rules":{')


@pytest.mark.nightly
def test_rules_that_are_not_saved_outlast_another_tab(entered: Page) -> None:
    entered.click("#tab-rules")
    source = entered.locator("textarea.source")
    expect(source).not_to_have_value("")
    source.press("ControlOrMeta+End")
    entered.keyboard.type("// mine")
    entered.click("#tab-data")
    entered.click("#tab-rules")
    expect(source).to_have_value(re.compile("// mine$"))
    expect(entered.locator("#rules [role=status]").first).to_have_text("not saved")
    entered.click("text=Revert")
    expect(source).not_to_have_value(re.compile("// mine$"))


@pytest.mark.nightly
def test_highlighted_rules_align_with_the_typed_text(entered: Page) -> None:
    entered.click("#tab-rules")
    source = entered.locator("textarea.source")
    source.fill("\n".join(f'// line {number} "text"' + " wide" * 60 for number in range(200)))
    sizes = """(area) => {
      const painted = area.previousElementSibling
      return [area.scrollWidth - painted.scrollWidth, area.scrollHeight - painted.scrollHeight]
    }"""
    assert source.evaluate(sizes) == [0, 0]
    source.press("ControlOrMeta+End")
    entered.keyboard.type("!")
    box = entered.locator(".editor")
    assert box.evaluate("(box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 40")
    assert box.evaluate("(box) => box.scrollLeft > 100")


@pytest.mark.nightly
def test_activity_has_axes_and_spans(entered: Page) -> None:
    entered.click("#tab-activity")
    tile = entered.locator(".tile", has_text="Event streams")
    expect(tile.locator(".values span")).to_have_text(["2", "1", "0"])
    expect(tile.locator(".times span")).to_have_count(3)
    entered.get_by_label("time span").select_option("1 hour")
    expect(tile.locator(".times span").first).to_have_text(re.compile(r"^\d\d:\d\d$"))
    expect(tile.get_by_role("img")).to_have_attribute("aria-label", re.compile("now 1, at most 1"))


def test_activity_shows_counts(entered: Page) -> None:
    entered.click("#tab-activity")
    streams = entered.locator(".tile", has_text="Event streams").locator("b")
    expect(streams).to_have_text("1")


@pytest.mark.nightly
def test_signing_out_forgets_the_token(entered: Page) -> None:
    entered.click("#leave")
    expect(entered.locator("#sign-in")).to_be_visible()
    entered.reload()
    expect(entered.locator("#sign-in")).to_be_visible()
