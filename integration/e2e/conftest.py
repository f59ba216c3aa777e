"""A real browser in front of a real node that serves the exported playground."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from sennit import playground

CHROMIUM = Path("/usr/bin/chromium")
ROWS = 60_000
INSECURE_HOST = "sennit.test"  # plain http under a name that is not localhost: no secure context
_CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
)

expect.set_options(timeout=15_000)


@dataclass
class Site:
    """A node with its playground."""

    data: Path
    url: str
    token: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@dataclass
class Watched:
    """What a page complained about; a test that expects a complaint takes it out."""

    complaints: list[str] = field(default_factory=list)

    def take(self, pattern: str) -> None:
        """Forget complaints that match, of which there must be one."""
        kept = [text for text in self.complaints if not re.search(pattern, text)]
        assert len(kept) < len(self.complaints), f"nothing matches {pattern}: {self.complaints}"
        self.complaints[:] = kept

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")


def platform(*arguments: str, data: Path, **settings: str) -> str:
    """Run the command line as a user would."""
    dropped = ("PYTHONDEVMODE", "SENNIT_URL", "SENNIT_TOKEN", "SENNIT_DATA")
    environment = {k: v for k, v in os.environ.items() if k not in dropped} | settings
    done = subprocess.run(
        [sys.executable, "-m", "sennit.cli", *arguments, "--data", str(data), "--json"],
        capture_output=True, text=True, check=False, timeout=90, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def running_site(data: Path, *, port: int = 0) -> Iterator[Site]:
    """Start a node through the command line, and stop it the same way."""
    settings = {
        "SENNIT_NETWORK__ALLOWED_HOSTS": INSECURE_HOST,
        "SENNIT_STORAGE__PART_BYTES": "256KiB",  # so that small files have many parts
    }
    arguments = ("up", "--detach", "--port", str(port), "--memory", "1GiB")
    up = json.loads(platform(*arguments, data=data, **settings))
    token = (data / "admin.token").read_text().strip()
    site = Site(data, up["url"], token, up["pid"])
    try:
        yield site
    finally:
        platform("down", data=data)


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
def browser(exported: None) -> Iterator[Browser]:
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=list(_CHROMIUM_ARGUMENTS)
        )
        yield started
        started.close()


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
    opened.on("console", watched.hear)
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
