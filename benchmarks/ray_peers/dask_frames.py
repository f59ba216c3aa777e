"""Dask's dataframes on a cluster of two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import dask
import dask.dataframe as dd
from dask.distributed import Client, LocalCluster
from serving import serve


def main() -> None:
    data = Path(sys.argv[1])
    dask.config.set({"distributed.dashboard.enabled": False})

    def read(name: str, columns: list[str]) -> dd.DataFrame:
        return dd.read_parquet(str(data / name), columns=columns)

    def write(rows: dd.DataFrame, key: str, parts: int, folder: Path) -> None:
        grouped = rows.groupby(key).agg(
            {"sale": "count", "cents": "sum", "qty": "max"}, split_out=parts
        )
        named = grouped.rename(columns={"sale": "n"}).reset_index()
        named.to_parquet(str(folder), write_index=False)

    def join(other: str, key: str, column: str, folder: Path) -> None:
        joined = read("sales", ["sale", key, "cents", "qty"]).merge(
            read(other, [key, column]), on=key
        )
        write(joined, column, 1, folder)

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=None
        ) as cluster,
        Client(cluster),
    ):
        serve(
            {
                "group, few": lambda to: write(
                    read("sales", ["sale", "product", "cents", "qty"]), "product", 1, to
                ),
                "group, many": lambda to: write(
                    read("sales", ["sale", "customer", "cents", "qty"]), "customer", 4, to
                ),
                "join": lambda to: join("customers", "customer", "region", to),
                "join, small": lambda to: join("products", "product", "category", to),
            }
        )


if __name__ == "__main__":
    main()
