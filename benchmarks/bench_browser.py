"""Claim: the engine in JavaScript filters and groups CSV and Arrow at the speed of one DuckDB thread.

One query over one file of 50 MB, in Node and in a tab of a real Chromium, with DuckDB on one thread
and DuckDB compiled to WebAssembly in the same run. Costs are CPU seconds, of the best round: those of
the process in Node, of the renderer in Chromium, with compilation and garbage collection. Bytes of
CSV are those of the file; bytes of columns are those of the five columns that the query reads.

    npm ci && npm run build --workspace @sennit/elytra
    npm ci --prefix benchmarks/browser_peers          # DuckDB-WASM; it is left out without this
    python benchmarks/bench_browser.py [--rows 740000] [--rounds 7] [--data DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from browser_peers.data import COLUMNS, QUERY, ROWS, write_arrow, write_csv
from browser_peers.pages import CHROMIUM, opened, site
from browser_peers.sizes import compressed_bytes

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "packages/elytra/js/dist"
MODULES = Path(__file__).parent / "browser_peers/node_modules"
_TYPES = ", ".join(f"'{name}': '{type_}'" for name, type_ in COLUMNS.items())
_CSV = f"read_csv('{{path}}', header = true, columns = {{{{{_TYPES}}}}})"
# In the worker, each message is answered by one.
_ASK = """(message) => new Promise((resolve, reject) => {
  window.worker ??= new Worker('/peers/worker.js', { type: 'module' })
  window.worker.onmessage = ({ data }) => resolve(data)
  window.worker.onerror = ({ message }) => reject(message)
  window.worker.postMessage(message)
})"""
_START_WASM = (
    "async (path) => { window.query = await (await import('/peers/duckdb_wasm.js')).start(path) }"
)


def in_duckdb(source: str, rounds: int, **tables: Any) -> tuple[list[float], list[list[Any]]]:
    """Run the query on one thread; returns the CPU seconds of each round, and the rows."""
    cpu = []
    rows: list[list[Any]] = []
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        for name, table in tables.items():
            connection.register(name, table)
        for _ in range(rounds):
            before = _cpu_seconds()
            rows = [list(row) for row in connection.execute(QUERY.format(source=source)).fetchall()]
            cpu.append(_cpu_seconds() - before)
    for row in rows:
        row[5:] = [round(each.timestamp()) for each in row[5:]]
    return cpu, rows


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def in_node(kind: str, path: Path, rounds: int) -> tuple[list[float], list[list[Any]]]:
    """Run a kernel in Node; as `in_duckdb`."""
    program = str(Path(__file__).parent / "browser_peers/node.mjs")
    done = subprocess.run(
        ["node", program, str(DIST), kind, str(path), str(rounds)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    return found["cpu"], found["rows"]


def in_tab(address: str, kind: str, name: str, rounds: int) -> tuple[list[float], Any, int]:
    """Run a kernel in a worker of a page; also returns the renderer's peak memory in bytes."""
    with opened(address) as tab:
        tab.page.evaluate(_ASK, {"path": f"/data/{name}"})
        cpu, rows = tab.measure(_ASK, {"kind": kind}, rounds)
        return cpu, rows, tab.peak_bytes()


def in_wasm(address: str, rounds: int) -> tuple[list[float], int]:
    """Run the query in DuckDB-WASM, in a page; returns CPU seconds, and the peak memory."""
    with opened(address) as tab:
        tab.page.evaluate(_START_WASM, "/data/rows.csv")
        sql = QUERY.format(source=_CSV.format(path="rows.csv"))
        cpu, _ = tab.measure("(sql) => window.query(sql)", sql, rounds)
        return cpu, tab.peak_bytes()


def check(name: str, rows: list[list[Any]], expected: list[list[Any]]) -> None:
    """Stop if an engine's rows are others: sums of DuckDB may differ in their last bits."""
    same = len(rows) == len(expected) and all(
        math.isclose(a, b, rel_tol=1e-9) if isinstance(b, float) else a == b
        for one, other in zip(rows, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    if not same:
        raise SystemExit(f"{name} has other rows: {rows[:2]} for {expected[:2]}")


def main() -> None:
    """Write the data, run every engine, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, help="a folder for the files; a new one by default")
    parser.add_argument("--no-chromium", action="store_true", help="DuckDB and Node only")
    options = parser.parse_args()
    if not DIST.exists():
        parser.error("no compiled package: npm ci && npm run build --workspace @sennit/elytra")
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        folder = Path(name)
        csv, arrow = folder / "rows.csv", folder / "rows.arrow"
        write_csv(csv, options.rows)
        column_bytes = write_arrow(csv, arrow)
        measure_csv(folder, options)
        measure_arrow(folder, column_bytes, options)
        show_sizes(folder)


def measure_csv(folder: Path, options: argparse.Namespace) -> None:
    """Print what the query costs over the CSV file."""
    csv, rounds = folder / "rows.csv", options.rounds
    base, expected = in_duckdb(_CSV.format(path=csv), rounds)
    show = table("CSV", csv.stat().st_size, min(base))
    show("DuckDB, 1 thread", base, None)
    cpu, rows = in_node("csv", csv, rounds)
    check("Node", rows, expected)
    show("Node", cpu, None)
    if options.no_chromium or not CHROMIUM.exists():
        return
    modules = MODULES if MODULES.exists() else None
    with site(DIST, folder, modules) as address:
        cpu, rows, peak = in_tab(address, "csv", csv.name, rounds)
        check("Chromium", rows, expected)
        show("Chromium", cpu, peak)
        if modules is None:
            print("  DuckDB-WASM: not installed (npm ci --prefix benchmarks/browser_peers)")
            return
        show("DuckDB-WASM", *in_wasm(address, rounds))


def measure_arrow(folder: Path, column_bytes: int, options: argparse.Namespace) -> None:
    """Print what the query costs over the columns of an Arrow stream."""
    arrow, rounds = folder / "rows.arrow", options.rounds
    with pa.ipc.open_stream(arrow) as stream:
        base, expected = in_duckdb("rows", rounds, rows=stream.read_all())
    show = table("Arrow", column_bytes, min(base))
    show("DuckDB, 1 thread", base, None)
    cpu, rows = in_node("arrow", arrow, rounds)
    check("Node", rows, expected)
    show("Node", cpu, None)
    if options.no_chromium or not CHROMIUM.exists():
        return
    with site(DIST, folder, None) as address:
        cpu, rows, peak = in_tab(address, "arrow", arrow.name, rounds)
        check("Chromium", rows, expected)
        show("Chromium", cpu, peak)


def table(title: str, size: int, base: float) -> Callable[[str, list[float], int | None], None]:
    """Print the head of a table; returns what prints a line of it."""
    print(
        f"{title + f', {size / 1e6:.1f} MB':24}{'CPU ms':>8}{'MB/CPU s':>10}{'ratio':>7}{'peak MB':>9}"
    )

    def line(name: str, cpu: list[float], peak: int | None) -> None:
        best = min(cpu)
        memory = "" if peak is None else f"{peak / 1e6:9.0f}"
        print(f"  {name:22}{best * 1e3:8.0f}{size / 1e6 / best:10.0f}{base / best:7.2f}{memory}")
        sys.stdout.flush()

    return line


def show_sizes(folder: Path) -> None:
    """Print the compressed sizes of what a page loads."""
    if not (ROOT / "node_modules/next").exists():
        print("sizes: no bundler (npm ci)")
        return
    for name, size in compressed_bytes(DIST, folder).items():
        print(f"{name:34}{size / 1e3:6.1f} kB gzip")


if __name__ == "__main__":
    main()
