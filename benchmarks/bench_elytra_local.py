"""Claim: a pipeline filters and groups 1 GB of CSV under 256 MiB, near DuckDB's time in less memory.

One process for each contender, one after the other, in rounds; the median is shown. Memory is
RssAnon + RssShmem of the process and its children, sampled from outside; pages of the file that
the kernel caches belong to nobody. Ratios are of one run on one machine.

    python benchmarks/bench_elytra_local.py [--data DIR] [--mb 1000] [--rounds 3] [--peers PYTHON]

`--peers` names an interpreter that has daft and dask[dataframe] installed, which Sennit does not.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from process_watch import ProcessWatch

CAP = "256MiB"
_COUNTRIES = ("US", "CH", "DE", "FR", "NO", "JP", "BR", "IN", "ZA", "CA")

_LOCAL = f"""
import sys
from elytra import Elytra, col, count
with Elytra.local("{CAP}") as local:
    rows = local.dataset(sys.argv[1]).filter((col("price") * col("qty") > 500) & (col("country") != "US"))
    answer = rows.group_by("country").agg(n=count(), total=col("price").sum(), most=col("qty").max())
"""
_DUCKDB = """
import sys, duckdb
duckdb.execute("SET threads = 2")
{limit}
print(duckdb.execute(
    "SELECT country, count(*) AS n, sum(price) AS total, max(qty) AS most FROM read_csv(?) "
    "WHERE price * qty > 500 AND country <> 'US' GROUP BY country ORDER BY country", [sys.argv[1]]
).fetchall())
"""
_DAFT = """
import sys, daft
from daft import col
rows = daft.read_csv(sys.argv[1]).where((col("price") * col("qty") > 500) & (col("country") != "US"))
print(rows.groupby("country").agg(
    col("id").count().alias("n"), col("price").sum().alias("total"), col("qty").max().alias("most")
).sort("country").to_pydict())
"""
_DASK = """
import sys, dask.dataframe as dd
rows = dd.read_csv(sys.argv[1])
rows = rows[(rows.price * rows.qty > 500) & (rows.country != "US")]
print(rows.groupby("country").agg({"id": "count", "price": "sum", "qty": "max"}).compute())
"""


@dataclass(frozen=True)
class Contender:
    """One way to run the query: a program, whose argument is the file."""

    name: str
    program: str
    python: str = sys.executable


@dataclass(frozen=True)
class Figures:
    """What one run cost."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def contenders(peers: str | None) -> list[Contender]:
    """Return all contenders; the first is the base of the ratios."""
    found = [
        Contender("duckdb", _DUCKDB.format(limit="")),
        Contender("duckdb 256 MB", _DUCKDB.format(limit="duckdb.execute(\"SET memory_limit='256MB'\")")),
        Contender("elytra collect", _LOCAL + "    print(answer.collect().rows)\n"),
        Contender("elytra write_csv", _LOCAL + "    answer.write_csv(sys.argv[1] + '.out')\n"),
    ]  # fmt: skip
    if peers is not None:
        found += [Contender("daft", _DAFT, peers), Contender("dask", _DASK, peers)]
    return found


def write_rows(path: Path, size_bytes: int) -> None:
    """Write about `size_bytes` of CSV: seven columns, 8 % of the notes quoted."""
    dice = random.Random(7)
    block = []
    for number in range(20_000):
        note = f'"said ""{number}"", twice"' if dice.random() < 0.08 else f"note {number}"
        block.append(
            f"{number},{dice.choice(_COUNTRIES)},{dice.uniform(1, 200):.2f},{dice.randint(1, 20)},"
            f"2026-01-{dice.randint(1, 28):02},{dice.random():.6f},{note}\n"
        )
    data = "".join(block).encode()
    with path.open("wb") as file:
        file.write(b"id,country,price,qty,day,weight,note\n")
        while file.tell() < size_bytes:
            file.write(data)


def measure(contender: Contender, path: Path) -> Figures:
    """Run a contender once.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [contender.python, "-c", contender.program, str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    watch = ProcessWatch(process.pid)
    _, errors = process.communicate()
    seconds = time.monotonic() - began
    watch.stop()
    if process.returncode:
        sys.stderr.write(errors.decode(errors="replace"))
        raise subprocess.CalledProcessError(process.returncode, contender.name)
    # Peaks of processes that were not at the same time are added: never less than it was.
    return Figures(seconds, sum(watch.cpu.values()), sum(watch.peaks.values()))


def show(names: Sequence[str], rounds: dict[str, list[Figures]]) -> None:
    """Print the medians, and their ratios to the first contender."""

    def median(name: str, what: str) -> float:
        return statistics.median(getattr(each, what) for each in rounds[name])

    base = names[0]
    print(f"{'':18}{'wall s':>9}{'ratio':>8}{'CPU s':>9}{'ratio':>8}{'peak MB':>10}{'ratio':>8}")
    for name in names:
        if not rounds[name]:
            print(f"{name:18}  failed")
            continue
        cells = ""
        for what, unit, width in (
            ("seconds", 1, 9),
            ("cpu_seconds", 1, 9),
            ("peak_bytes", 1e6, 10),
        ):
            value = median(name, what)
            ratio = value / median(base, what)
            cells += f"{value / unit:>{width}.1f}{ratio:>8.2f}"
        print(f"{name:18}{cells}")


def main() -> None:
    """Write the data, run every contender in each round, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder for the file; a new one by default")
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="a Python with daft and dask[dataframe]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        path = Path(folder) / "rows.csv"
        write_rows(path, options.mb * 1_000_000)
        found = contenders(options.peers)
        rounds: dict[str, list[Figures]] = {each.name: [] for each in found}
        for _ in range(options.rounds):
            for each in found:
                try:
                    rounds[each.name].append(measure(each, path))
                except subprocess.CalledProcessError as error:
                    print(f"{each.name}: {error}", file=sys.stderr)
        show(list(rounds), rounds)


if __name__ == "__main__":
    main()
