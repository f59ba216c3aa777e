"""A real browser in front of a real node that serves the exported playground."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.browser_site import (
    INSECURE_HOST,
    ROWS,
    Site,
    Watched,
    platform,
    running_site,
)
from e2e.elkyn_pages import Pages
from elkyn_package import packed, site_of
from elkyn_server import Served
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from sennit import playground

CHROMIUM = Path("/usr/bin/chromium")
_CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
)

expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def exported() -> None:
    """The export of the sources as they are; free when nothing has changed."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    playground.build()


@pytest.fixture(scope="session")
def site(exported: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node for all tests that name their own tables."""
    with running_site(tmp_path_factory.mktemp("site")) as started:
        yield started


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The one browser of the run."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=list(_CHROMIUM_ARGUMENTS)
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def browser(exported: None, chromium: Browser) -> Browser:
    """The browser, with the playground built for it."""
    return chromium


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1360, "height": 860}, accept_downloads=True)
    yield opened
    opened.close()


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def page(context: BrowserContext, site: Site, watched: Watched) -> Iterator[Page]:
    """A page that is signed in; the test fails when it wrote errors to its console."""
    opened = context.new_page()
    opened.on("console", watched.record)
    opened.on("pageerror", lambda error: watched.complaints.append(f"uncaught: {error}"))
    opened.goto(f"{site.url}/?token={site.token}")
    yield opened
    opened.goto("about:blank")  # what still streams is closed by the page, not by the driver
    assert watched.complaints == []


@pytest.fixture(scope="session")
def harbours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of a few megabytes with nothing random in it."""
    path = tmp_path_factory.mktemp("files") / "harbours.csv"
    ports = ("Hobart", "Bergen", "Mombasa", "Dundee")
    with path.open("w", encoding="utf-8") as file:
        file.write("berth,port,ship,tons,depth\n")
        file.writelines(
            f"{i},{ports[i % 4]},ship {i % 977},{i * 7 % 1009},{i % 31}.{i % 10}\n"
            for i in range(ROWS)
        )
    return path


@pytest.fixture(scope="session")
def loaded(site: Site, harbours: Path) -> str:
    """The name of a table that is there already."""
    platform("put", str(harbours), "--name", "berths", data=site.data)
    return "berths"


@pytest.fixture(scope="session")
def elkyn_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Elkyn's JavaScript package as it is published, on a site of its own."""
    with site_of(packed(tmp_path_factory.mktemp("elkyn-js"))) as address:
        yield address


@pytest.fixture
def pages(chromium: Browser, elkyn_site: str) -> Iterator[Pages]:
    """Opens pages of that site in one browser; nothing in them may stay uncaught."""
    with chromium.new_context() as opened:
        pages = Pages(opened, elkyn_site)
        yield pages
        for page in opened.pages:
            page.goto("about:blank")
    assert pages.errors == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A tree of its own, served, that a test may stop and start again."""
    served = Served(tmp_path / "data", "--durability", "interval")
    yield served
    if served.process.returncode is None:
        served.stop()
