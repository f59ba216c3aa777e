"""Claim: the first task of a tab starts within 500 ms after its page was opened.

A job waits for a worker; a tab opens a page of the node, whose first script starts its outer worker. Times
are those of the page's own clock, from the start of the navigation. Quiet machines only: this is wall time.
The step `script` is what the browser needs before any script of the page runs. With `--by-driver` the
script is sent to the page once it has loaded, which adds the way through the driver's two processes.
The CPU time is that of browser and node from the navigation to the end of the task, which no other work on
the machine changes much: most of the way is one step after another.

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

import psutil
from playwright.sync_api import Browser, sync_playwright

import sennit
from elytra import count

CHROMIUM = "/usr/bin/chromium"
# The icon is the smallest page of the node: what is measured is the worker, not React.
_PAGE = "/icon.svg"
_START = """
(token) => new Promise((resolve, reject) => {
  const times = { script: performance.now() }
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


def first_task(
    browser: Browser, session: sennit.Session, token: str, node: int, *, by_driver: bool
) -> dict[str, float]:
    """Open a page while a job waits; return the milliseconds to each step."""
    job = session.pipeline("rows").group_by("k").agg(n=count()).submit(engine="browser")
    with browser.new_context() as context:
        page = context.new_page()
        if not by_driver:
            page.add_init_script(
                f"if (location.pathname === '{_PAGE}') window.times = ({_START})('{token}')"
            )
        before = _cpu_seconds(node)
        page.goto(session.url + _PAGE)
        times: dict[str, float] = (
            page.evaluate(_START, token) if by_driver else page.evaluate("() => window.times")
        )
        job.wait(60)
        for name, seconds in _cpu_seconds(node).items():
            times[f"CPU, {name}"] = (seconds - before[name]) * 1e3
    return times


def _cpu_seconds(node: int) -> dict[str, float]:
    """Return the CPU seconds so far of the processes of the node, and of the browser."""
    found = {"node": 0.0, "browser": 0.0}
    families = {"node": psutil.Process(node), "browser": psutil.Process()}
    for name, parent in families.items():
        for each in (*parent.children(recursive=True), *([parent] if name == "node" else ())):
            times = each.cpu_times()
            found[name] += times.user + times.system
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--by-driver", action="store_true", help="send the script after the load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "node"
        command = [sys.executable, "-m", "sennit.cli"]
        place = ["--data", str(data), "--json"]
        up = [*command, "up", "--detach", "--port", "0", *place]
        found: dict[str, Any] = json.loads(subprocess.check_output(up))
        admin = (data / "admin.token").read_text().strip()
        try:
            with sennit.connect(found["url"], token=admin) as session, sync_playwright() as driver:
                session.sql("create table rows as select i % 7 as k from range(100000) r(i)")
                token = session.workers.invite()["token"]
                browser = driver.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
                )
                times = [
                    first_task(browser, session, token, found["pid"], by_driver=options.by_driver)
                    for _ in range(options.rounds)
                ]
                browser.close()
        finally:
            subprocess.check_call([*command, "down", *place], stdout=subprocess.DEVNULL)
    print(f"{'step':<14}{'best ms':>10}{'median ms':>12}")
    for step in ("script", "connected", "task", "done", "CPU, node", "CPU, browser"):
        values = [each[step] for each in times]
        print(f"{step:<14}{min(values):>10.0f}{statistics.median(values):>12.0f}")


if __name__ == "__main__":
    main()
