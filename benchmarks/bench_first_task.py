"""Claim: the first task of a tab starts within 500 ms after its page was opened.

A job waits for a worker; a tab opens a page of the node and starts its outer worker. Times are those of
the page's own clock, from the start of the navigation. Quiet machines only: this is wall time.

    python -m sennit.playground build
    python benchmarks/bench_first_task.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

import sennit
from elytra import count

CHROMIUM = "/usr/bin/chromium"
# The icon is the smallest page of the node: what is measured is the worker, not React.
_PAGE = "/icon.svg"
_START = """
(token) => new Promise((resolve, reject) => {
  const times = {}
  const outer = new Worker('/runtime/outer.js')
  const note = (name) => (times[name] ??= performance.now())
  outer.onerror = ({ message }) => reject(message)
  outer.onmessage = ({ data }) => {
    if (data.ended !== null) reject(data.ended)
    if (data.connected) note('connected')
    if (data.computing > 0) note('task')
    if (data.done > 0) { note('done'); resolve(times) }
  }
  outer.postMessage({ kind: 'start', token, kindShown: 'tab', controls: {} })
})
"""


def first_task(browser: Browser, session: sennit.Session, token: str) -> dict[str, float]:
    """Open a page while a job waits; return the milliseconds to each step."""
    job = session.pipeline("rows").group_by("k").agg(n=count()).submit(engine="browser")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(session.url + _PAGE)
        times: dict[str, float] = page.evaluate(_START, token)
        job.wait(60)
    return times


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "node"
        command = [sys.executable, "-m", "sennit.cli"]
        options = ["--data", str(data), "--json"]
        up = [*command, "up", "--detach", "--port", "0", *options]
        found: dict[str, Any] = json.loads(subprocess.check_output(up))
        admin = (data / "admin.token").read_text().strip()
        try:
            with sennit.connect(found["url"], token=admin) as session, sync_playwright() as driver:
                session.sql("create table rows as select i % 7 as k from range(100000) r(i)")
                token = session.workers.invite()["token"]
                browser = driver.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
                )
                times = [first_task(browser, session, token) for _ in range(rounds)]
                browser.close()
        finally:
            subprocess.check_call([*command, "down", *options], stdout=subprocess.DEVNULL)
    print(f"{'step':<12}{'best ms':>10}{'median ms':>12}")
    for step in ("connected", "task", "done"):
        values = [each[step] for each in times]
        print(f"{step:<12}{min(values):>10.0f}{statistics.median(values):>12.0f}")


if __name__ == "__main__":
    main()
