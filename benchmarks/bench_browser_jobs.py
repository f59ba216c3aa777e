"""Claim: two tabs run a job over 1 GB in 3 times the time of the node's own engine, in 1.5 with kept inputs.

A node, and tabs of a real Chromium that its page Compute would start. The same group-by over the same number
of rows: on the node alone, in one tab and in two, with inputs that the tabs fetch (`cold`) and that they
have kept (`kept`). Each number of tabs has a dataset of its own, as the node keeps the inputs that it has
written. Two tabs against one: at least 1.1 cold, 1.6 with kept inputs, on two quiet cores.

    python -m sennit.playground build
    python benchmarks/bench_browser_jobs.py [--rows 34000000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, sync_playwright

import sennit
from elytra import col, count
from elytra.pipelines.pipeline import Pipeline

CHROMIUM = "/usr/bin/chromium"
_PAGE = "/icon.svg"
_KEPT_BYTES = 4 << 30
_START = """
([token, inputBytesMax]) => new Promise((resolve, reject) => {
  window.outer = new Worker('/runtime/outer.js')
  window.outer.onerror = ({ message }) => reject(message)
  window.outer.onmessage = ({ data }) => {
    if (data.ended !== null) reject(data.ended)
    if (data.connected) resolve()
  }
  window.outer.postMessage({ kind: 'start', token, kindShown: 'tab', controls: { inputBytesMax } })
})
"""


def query(session: sennit.Session, dataset: str) -> Pipeline:
    """The group-by that is measured: a filter, a computed column, and five results for each group."""
    value = col("price") * col("qty")
    rows = session.pipeline(dataset).filter(value > 40)
    return rows.group_by("country").agg(
        n=count(),
        total=value.sum(),
        mean=col("price").avg(),
        lo=col("at").min(),
        hi=col("at").max(),
    )


def load(session: sennit.Session, dataset: str, rows: int, start: int) -> int:
    """Make a dataset whose shards no other one has; return the bytes of its columns."""
    for shard in range(8):
        first = start + shard * (rows // 8)
        session.sql(f"""
            {f"create table {dataset} as" if shard == 0 else f"insert into {dataset}"}
            select (i * 7919 % 10007) / 16.0 as price, i % 13 as qty,
                case i % 4 when 0 then 'US' when 1 then 'NO' when 2 then 'DE' else 'FR' end as country,
                timestamp '2013-01-01' + interval (i % 100000) minute as at
            from range({first}, {first + rows // 8}) r(i)
        """)
    return rows * (8 + 8 + 6 + 8)


@contextmanager
def tabs(browser: Browser, session: sennit.Session, number: int) -> Iterator[None]:
    """Let new tabs, which keep their inputs, compute for the node."""
    with ExitStack() as opened:
        for _ in range(number):
            # One storage for each: two tabs of a person share it, and the second has nothing to fetch.
            page = opened.enter_context(browser.new_context()).new_page()
            page.goto(session.url + _PAGE)
            page.evaluate(_START, [session.workers.invite()["token"], _KEPT_BYTES])
        yield


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds of a run, the CPU seconds of the node and of the tabs meanwhile, and its result."""
    cpu, start = _cpu_seconds(), time.perf_counter()
    result = run()
    return time.perf_counter() - start, _cpu_seconds() - cpu, result


def _cpu_seconds() -> float:
    family = psutil.Process().children(recursive=True)
    times = [each.cpu_times() for each in family if each.is_running()]
    return sum(each.user + each.system for each in times)


def measure(session: sennit.Session, browser: Browser, rows: int, rounds: int) -> None:
    """Print a line for each case."""
    size = load(session, "rows1", rows, 0)
    load(session, "rows2", rows, rows)

    def answer(dataset: str, engine: str) -> Any:
        result = query(session, dataset).submit(engine=engine).result(3600)
        return sorted(result.to_arrow().to_pylist(), key=str)

    expected = {name: answer(name, "local") for name in ("rows1", "rows2")}
    local = [timed(lambda: answer("rows1", "local"))[:2] for _ in range(rounds)]
    base = statistics.median(seconds for seconds, _ in local)
    print(f"{size / 1e6:.0f} MB of columns{'seconds':>14}{'CPU s':>8}{'/ local':>9}{'/ 1 tab':>9}")
    print(f"{'node':<22}{base:>12.2f}{statistics.median(cpu for _, cpu in local):>8.1f}")
    one: dict[str, float] = {}
    for number in (1, 2):
        name = f"rows{number}"
        with tabs(browser, session, number):
            for case, times in (("cold", 1), ("kept", rounds)):
                found = [timed(lambda: answer(name, "browser")) for _ in range(times)]  # noqa: B023
                if any(result != expected[name] for *_, result in found):
                    raise SystemExit(f"{number} tabs have another answer than the node")
                seconds = statistics.median(each[0] for each in found)
                cpu = statistics.median(each[1] for each in found)
                one.setdefault(case, seconds)
                print(
                    f"{number} {'tab, ' if number == 1 else 'tabs,'} {case:<14}{seconds:>12.2f}"
                    f"{cpu:>8.1f}{seconds / base:>9.2f}{one[case] / seconds:>9.2f}"
                )
                sys.stdout.flush()


def main() -> None:
    """Start a node and a browser, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=34_000_000, help="a multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["SENNIT_WORKERS__TRUST"] = "trust"  # a sample would be the node's work
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "node"
        command = [sys.executable, "-m", "sennit.cli", "up", "--data", str(data), "--port", "0"]
        # In the foreground: its processes are children of this one, which counts their CPU time.
        node = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
        assert node.stdout is not None
        try:
            found: dict[str, Any] = json.loads(node.stdout.readline())
            admin = (data / "admin.token").read_text().strip()
            with sennit.connect(found["url"], token=admin) as session, sync_playwright() as driver:
                browser = driver.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
                )
                measure(session, browser, options.rows, options.rounds)
                browser.close()
        finally:
            node.terminate()
            node.wait()


if __name__ == "__main__":
    main()
