"""A node with its playground, and what a page of it complains about."""

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

import psutil
from playwright.sync_api import ConsoleMessage, Page

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
ROWS = 60_000
# Nothing short of a minute: a join without a key over the rows of `loaded`, squared.
SLOW = "select count(*) from berths a, berths b where a.tons * b.tons + a.berth % 7 = 12345"
INSECURE_HOST = "sennit.test"  # plain http under a name that is not localhost: no secure context


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
    """Complaints of a page; a test removes those that it expects."""

    complaints: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Remove complaints that match, of which there must be one."""
        kept = [text for text in self.complaints if not re.search(pattern, text)]
        assert len(kept) < len(self.complaints), f"nothing matches {pattern}: {self.complaints}"
        self.complaints[:] = kept

    def record(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong, one line each, once no colour or opacity changes."""
    page.wait_for_function("() => document.getAnimations().every((a) => a.playState !== 'running')")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run({resultTypes: ['violations']})")["violations"]
    return [
        f"{rule['id']}: {node['html'][:160]} {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]


def platform(*arguments: str, data: Path, **settings: str) -> str:
    """Run the command line as a user would."""
    dropped = ("SENNIT_URL", "SENNIT_TOKEN", "SENNIT_DATA")
    environment = {k: v for k, v in os.environ.items() if k not in dropped} | settings
    done = subprocess.run(
        [sys.executable, "-m", "sennit.cli", *arguments, "--data", str(data), "--json"],
        capture_output=True, text=True, check=False, timeout=90, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def executors_held(site: Site) -> Iterator[None]:
    """Keep what a node computes from going on for the length of a `with`."""
    children = psutil.Process(site.pid).children(recursive=True)
    held = [each for each in children if "emsqrt.executor.process" in each.cmdline()]
    for each in held:
        each.suspend()
    try:
        yield
    finally:
        for each in held:
            each.resume()


@contextmanager
def running_site(
    data: Path,
    *,
    port: int = 0,
    memory: str = "1GiB",
    part_bytes: str = "256KiB",
    **more: str,
) -> Iterator[Site]:
    """Start a node through the command line, and stop it the same way.

    Its parts are small, so that small files have many; `more` are settings as variables.
    """
    settings = {
        "SENNIT_NETWORK__ALLOWED_HOSTS": INSECURE_HOST,
        "SENNIT_STORAGE__PART_BYTES": part_bytes,
        **more,
    }
    arguments = ("up", "--detach", "--port", str(port), "--memory", memory)
    up = json.loads(platform(*arguments, data=data, **settings))
    token = (data / "admin.token").read_text().strip()
    site = Site(data, up["url"], token, up["pid"])
    try:
        yield site
    finally:
        platform("down", data=data)
