"""TPC-H over three nodes that hold a third of the great tables each, beside one DuckDB.

A fourth node writes the datasets, and ends when the copies are made. `hashed`: lineitem and orders are
partitioned by buckets of the order key, and equal buckets are on one node. `rows`: lineitem has shards of
any rows. All other tables are on each node. One of the three nodes is asked. *gather* is what the shards of
the read tables have that are not at the asked node: without distributed plans, they would be fetched.
A statement that is repeated is planned once; *anew* is the CPU time of one whose text differs in a comment, so that it is planned.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from .nodes import NodeProcess, Nodes, wait_until

__all__ = ["run"]

_TABLES = ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem")
_WRITER, _ASKED = "oslo", "rome"
_HOLDERS = (_ASKED, "lima", "pune")
_BUCKETS = 12
_KEYS = {"lineitem": "l_orderkey", "orders": "o_orderkey"}
_SPLIT = {"hashed": ("lineitem", "orders"), "rows": ("lineitem",)}
_IDLE_SECONDS = 5.0


def run(scale: float, passes: int) -> None:
    """Print what queries over several nodes move, and what CPU time they take.

    Args:
        scale: The scale factor of TPC-H.
        passes: How often each query runs; the median counts. One more fills caches.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        command = [
            str(Path(sys.executable).with_name("tpchgen-cli")),
            "parquet",
            "-s",
            f"{scale:g}",
        ]
        subprocess.run([*command, f"--output-dir={folder}"], check=True, stdout=subprocess.DEVNULL)
        for placement in _SPLIT:
            with network(folder, placement) as nodes:
                _print(placement, scale, passes, nodes)


def _print(placement: str, scale: float, passes: int, nodes: Nodes) -> None:
    asked = nodes[_ASKED]
    shards = {name: asked.call("shards", dataset=name) for name in _TABLES}
    held = [sum(here for *_, here in n.call("shards", dataset="lineitem")) for n in nodes]
    print(f"\nqueries: TPC-H SF {scale:g}, {placement}, shards of lineitem at each node: {held}")
    print(f"{'':5}{'strategy':9}{'moved bytes':>13}{'gather':>12}{'gather/moved':>14}"
          f"{'CPU s':>8}{'anew':>8}{'DuckDB':>8}{'ratio':>7}{'s':>8}{'DuckDB':>8}")  # fmt: skip
    found, writer = [], asked.folder.parent / _WRITER  # which has all shards
    with duckdb.connect() as whole:
        for name in _TABLES:
            files = [str(writer / file) for file, *_ in shards[name]]
            whole.sql(f"CREATE VIEW {name} AS FROM read_parquet({files})")
        lacking = {t: {f: size for f, size, here in shards[t] if not here} for t in _TABLES}
        for number, sql in queries().items():
            each = measured(sql, nodes, whole, lacking, passes)
            found.append(each)
            less = f"{each.less:14,.0f}" if each.moved else f"{'':14}"
            print(f"Q{number:<4}{each.strategy:9}{each.moved:13,}{each.gather:12,}{less}{each.times}",
                  flush=True)  # fmt: skip
    _print_totals(found)
    before, started = nodes.cpu_seconds, time.monotonic()
    time.sleep(_IDLE_SECONDS)
    idle = (nodes.cpu_seconds - before) / (time.monotonic() - started)
    print(f"three idle nodes: {idle:.2f} CPU s in a second")


@dataclass(frozen=True)
class Measured:
    """A query: its strategy, bytes, and seconds of CPUs and the clock; `whole_*` of one DuckDB.

    Args:
        anew_cpu: The CPU seconds if it has to be planned.
    """

    strategy: str
    moved: int
    gather: int
    cpu: float
    anew_cpu: float
    whole_cpu: float
    seconds: float
    whole_seconds: float

    @property
    def less(self) -> float:
        """How many times fewer bytes it moves than a gather."""
        return self.gather / self.moved

    @property
    def times(self) -> str:
        """The columns of the table that are times."""
        cpu = f"{self.cpu:8.2f}{self.anew_cpu:8.2f}{self.whole_cpu:8.2f}"
        cpu += f"{self.cpu / self.whole_cpu:7.1f}"
        return f"{cpu}{self.seconds:8.2f}{self.whole_seconds:8.2f}"


def _print_totals(found: list[Measured]) -> None:
    pushed = [each for each in found if each.strategy == "push" and each.moved]
    for title, some in (("all", found), ("push", pushed)):
        if not some:
            continue
        cpu, whole = sum(e.cpu for e in some), sum(e.whole_cpu for e in some)
        anew = sum(e.anew_cpu for e in some)
        moved, gather = sum(e.moved for e in some), sum(e.gather for e in some)
        print(f"{title}: {len(some)} queries, {cpu:.2f} CPU s, DuckDB {whole:.2f}, {cpu / whole:.1f} ×, anew {anew / whole:.1f} ×;"
              f" moved {moved / 1e6:.2f} MB, gather {gather / 1e6:.1f}")  # fmt: skip
    if pushed:
        ratios = [each.less for each in pushed]
        print(
            f"gather/moved of pushed queries: median {median(ratios):,.0f}, min {min(ratios):,.1f}"
        )


def measured(
    sql: str,
    nodes: Nodes,
    whole: duckdb.DuckDBPyConnection,
    lacking: Mapping[str, Mapping[str, int]],
    passes: int,
) -> Measured:
    """Run a query at a node and in one DuckDB, alternating; compare the results.

    Raises:
        ValueError: They differ.
    """
    asked, place = nodes[_ASKED], nodes[_ASKED].folder / "rows.arrow"
    # A gather of whole shards keeps them, and the next query would be local.
    files = [file for each in lacking.values() for file in each]

    def run(text: str) -> tuple[float, float]:
        asked.call("drop", files=files)
        return _timed(
            lambda: asked.call("sql", sql=text, place=str(place)), lambda: nodes.cpu_seconds
        )

    took, anew_took, whole_took = [], [], []
    for number in range(passes + 1):
        anew_took.append(run(f"{sql} -- {number}"))
        took.append(run(sql))
        whole_took.append(_timed(lambda: whole.sql(sql).fetchall(), time.process_time))
        with pa.OSFile(str(place)) as file:
            rows = duckdb.from_arrow(pa.ipc.open_file(file).read_all()).fetchall()
        compare(rows, whole.sql(sql).fetchall())
    asked.call("drop", files=files)
    strategy, moved = _explained(asked, sql)
    read = {name for name in lacking if re.search(rf"\b{name}\b", sql)}
    gather = sum(size for name in read for size in lacking[name].values())
    if strategy == "local" and gather:  # it is not distributed: the shards were fetched
        strategy, moved = "fetch", gather
    anew_cpu = median(cpu for cpu, _ in anew_took[1:])
    cpu, seconds = (median(each[place] for each in took[1:]) for place in (0, 1))
    whole_cpu, whole_seconds = (median(each[place] for each in whole_took[1:]) for place in (0, 1))
    return Measured(strategy, moved, gather, cpu, anew_cpu, whole_cpu, seconds, whole_seconds)


def _explained(asked: NodeProcess, sql: str) -> tuple[str, int]:
    """Return the strategy of a query, and the bytes that it moves."""
    notes = {key: value for key, value, *_ in asked.call("explain", sql=sql)}
    if "distributed" not in notes:  # all shards are here
        return "local", 0
    plan = json.loads(notes["distributed"])
    members = ("bytesByNode", "sentBytesByNode")
    moved = sum(sum(step.get(each, {}).values()) for step in plan["steps"] for each in members)
    return plan["strategy"], moved


def _timed(work: Callable[[], object], cpu: Callable[[], float]) -> tuple[float, float]:
    began, used = time.perf_counter(), cpu()
    work()
    return cpu() - used, time.perf_counter() - began


def compare(rows: list[tuple[object, ...]], wanted: list[tuple[object, ...]]) -> None:
    """Compare results in their order; numbers that are not exact at rel 1e-9.

    Raises:
        ValueError: They differ.
    """

    def is_equal(one: object, other: object) -> bool:
        if isinstance(one, float) and isinstance(other, float):
            return math.isclose(one, other, rel_tol=1e-9)
        return one == other

    if len(rows) != len(wanted):
        raise ValueError(f"{len(rows)} rows instead of {len(wanted)}")
    for row, other in zip(rows, wanted, strict=True):
        if not all(map(is_equal, row, other)):
            raise ValueError(f"{row} instead of {other}")


@contextmanager
def network(folder: Path, placement: str) -> Iterator[Nodes]:
    """Start nodes with a placement of the tables; the writer has ended."""
    place = folder / placement
    place.mkdir()
    with Nodes(place, [_WRITER, *_HOLDERS]) as nodes:
        writer = nodes[_WRITER]
        for name in _TABLES:
            is_split = name in _SPLIT[placement]
            options = {}
            files = [folder / f"{name}.parquet"]
            if is_split and placement == "hashed":
                options = {"partition_by": [f"bucket({_BUCKETS}, {_KEYS[name]})"]}
            elif is_split:
                files = _parts(files[0], place)
            for file in files:
                writer.call("append", dataset=name, file=str(file), **options)
            writer.call("share", dataset=name, copies=2 if is_split else len(_HOLDERS) + 1)

        def is_placed() -> bool:
            for name in _TABLES:
                found = [nodes[node].call("shards", dataset=name) for node in _HOLDERS]
                copies = sum(here for shards in found for *_, here in shards)
                each = 1 if name in _SPLIT[placement] else len(_HOLDERS)
                if copies != len(writer.call("shards", dataset=name)) * each:
                    return False
            return True

        wait_until(is_placed)
        nodes.kill(_WRITER)
        # The others learn from each other where the copies are.
        wait_until(lambda: not any(node.call("copies")["unavailable"] for node in nodes))
        yield nodes


def _parts(file: Path, folder: Path) -> list[Path]:
    """Cut a file into one for each shard."""
    table = pq.read_table(file)
    rows = -(-table.num_rows // _BUCKETS)
    places = [folder / f"{file.stem}-{number}.parquet" for number in range(_BUCKETS)]
    for number, place in enumerate(places):
        pq.write_table(table.slice(number * rows, rows), place)
    return places


def queries() -> dict[int, str]:
    """Return the queries of TPC-H by their numbers."""
    text = (Path(__file__).parents[1] / "tpch_queries.sql").read_text()
    parts = re.split(r"-- Q(\d+)\n", text)[1:]
    return {int(parts[at]): parts[at + 1].strip().rstrip(";") for at in range(0, len(parts), 2)}
