"""Every page fits its window: nothing scrolls sideways, on a phone or a tablet, in both themes."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.browser_site import Site, Watched, platform
from playwright.sync_api import Browser, Page, expect

import sennit
from sennit_core.errors import SennitError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SIZES = {"phone": (390, 844), "tablet": (768, 1024)}
LONG = "a_table_whose_name_is_as_long_as_some_exporters_make_them_2026_11_22_final_version"


@pytest.fixture(scope="session")
def places(site: Site, loaded: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The address of each page in each state that has a layout of its own."""
    folder = tmp_path_factory.mktemp("narrow")
    wide = folder / "wide.csv"
    wide.write_text(
        ",".join(f"a_rather_long_column_name_{n}" for n in range(60)) + "\n"
        + (",".join("a value with some words" for _ in range(60)) + "\n") * 20
    )  # fmt: skip
    platform("put", str(wide), "--name", LONG, data=site.data)
    broken = folder / f"{LONG}_broken.csv"
    broken.write_bytes(b'a,b\n1,2\n"never closed,3\n')
    with sennit.connect(site.url, token=site.token) as session:
        done = session.pipeline(loaded).group_by("port").count().submit()
        done.wait(60)
        with pytest.raises(SennitError):
            session.put(broken, strict=True)
        failed = next(job for job in session.jobs() if job.state == "failed")
    return {
        "home": "/",
        "data": "/data/",
        "table": f"/data/?id={loaded}",
        "wide table": f"/data/?id={LONG}",
        "no table": "/data/?id=nothing",
        "sql": "/sql/",
        "jobs": "/jobs/",
        "compute": "/compute/",
        "storage": "/storage/",
        "network": "/network/",
        "done job": f"/jobs/?id={done.id}",
        "failed job": f"/jobs/?id={failed.id}",
        "no job": "/jobs/?id=nothing",
        "no page": "/nowhere/",
    }


def overflow(page: Page) -> list[str]:
    """The elements that make the page wider than its window, the innermost ones."""
    found: list[str] = page.evaluate(
        """() => {
          const root = document.documentElement
          if (root.scrollWidth <= innerWidth) return []
          const wide = [...document.body.querySelectorAll('*')].filter(
            (each) => each.getBoundingClientRect().right > innerWidth + 0.5)
          const inner = wide.filter((each) => !wide.some((other) => other !== each && each.contains(other)))
          return [`${root.scrollWidth} px`, ...inner.slice(0, 5).map((each) => each.outerHTML.slice(0, 160))]
        }"""
    )
    return found


def resize(page: Page, size: str, theme: str) -> None:
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")


def settle(page: Page) -> None:
    expect(page.get_by_text("Live", exact=True)).to_be_attached()
    expect(page.locator(".skeleton")).to_have_count(0)


@pytest.mark.sample(1)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_no_page_is_wider_than_its_window(
    page: Page, site: Site, watched: Watched, places: dict[str, str], size: str, theme: str
) -> None:
    resize(page, size, theme)
    too_wide = {}
    for name, path in places.items():
        page.goto(site.url + path)
        settle(page)
        if found := overflow(page):
            too_wide[name] = found
    watched.expect("status of 404")  # the page that does not exist
    assert too_wide == {}


@pytest.mark.nightly
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_answers_errors_and_dialogs_fit_the_window(
    page: Page, site: Site, watched: Watched, places: dict[str, str], size: str, theme: str
) -> None:
    resize(page, size, theme)
    for query, shown in (
        (f"select * from {LONG}", "words"),
        ("select no_such_column_with_a_rather_long_name_that_never_breaks", "valid SQL"),
    ):
        page.goto(f"{site.url}/sql/?q={query}")
        page.get_by_role("button", name="Run").click()
        expect(page.locator("main")).to_contain_text(shown)
        assert overflow(page) == []
    watched.expect("status of 400")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    assert overflow(page) == []


@pytest.mark.nightly
def test_the_sign_in_page_fits_a_phone(browser: Browser, site: Site) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.goto(f"{site.url}/data/")
        expect(page.get_by_label("Or paste the token")).to_be_visible()
        assert overflow(page) == []


@pytest.mark.nightly
def test_uploads_fit_a_phone(page: Page, site: Site, watched: Watched, tmp_path: Path) -> None:
    resize(page, "phone", "light")
    page.goto(f"{site.url}/data/")
    for name in ("first", "first"):  # the second is refused: the name is in use
        file = tmp_path / f"{LONG}_{name}.csv"
        file.write_text("a\n1\n")
        page.set_input_files("input[type=file]", file)
        expect(page.get_by_text(file.name).first).to_be_visible()
        expect(page.get_by_role("link", name="Open").first).to_be_visible()
    expect(page.get_by_text("There is a table of this name already")).to_be_visible()
    watched.expect("status of 409")
    assert overflow(page) == []
