"""DuckDB in this process, with two threads: what one machine can do."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
from serving import serve

TOTALS = "count(*) AS n, sum(cents)::BIGINT AS cents, max(qty) AS qty"


def main() -> None:
    data = Path(sys.argv[1])
    duckdb.execute("SET threads = 2")
    for name in ("sales", "customers", "products"):
        duckdb.execute(f"CREATE VIEW {name} AS FROM read_parquet('{data / name}/*.parquet')")

    def write(rows: str, key: str, folder: Path) -> None:
        query = f"SELECT {key}, {TOTALS} FROM {rows} GROUP BY {key}"
        duckdb.execute(f"COPY ({query}) TO '{folder / 'answer.parquet'}'")

    serve(
        {
            "group, few": lambda to: write("sales", "product", to),
            "group, many": lambda to: write("sales", "customer", to),
            "join": lambda to: write("sales JOIN customers USING (customer)", "region", to),
            "join, small": lambda to: write("sales JOIN products USING (product)", "category", to),
        }
    )


if __name__ == "__main__":
    main()
