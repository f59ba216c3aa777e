"""Ray Data on a cluster of its own with two CPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
import ray.data
from ray.data.aggregate import Count, Max, Sum
from serving import serve

_PARTITIONS = 4
"""The default of 200 takes minutes for each query."""


def main() -> None:
    data = Path(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 30)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def read(name: str, columns: list[str]) -> ray.data.Dataset:
        return ray.data.read_parquet(str(data / name), columns=columns)

    def write(rows: ray.data.Dataset, key: str, folder: Path) -> None:
        totals = (
            Count(alias_name="n"),
            Sum("cents", alias_name="cents"),
            Max("qty", alias_name="qty"),
        )
        grouped = rows.groupby(key, num_partitions=_PARTITIONS).aggregate(*totals)
        grouped.write_parquet(str(folder))

    def join(other: str, key: str, column: str, folder: Path) -> None:
        rows = read("sales", [key, "cents", "qty"])
        joined = rows.join(
            read(other, [key, column]), "inner", num_partitions=_PARTITIONS, on=(key,)
        )
        write(joined, column, folder)

    serve(
        {
            "group, few": lambda to: write(
                read("sales", ["product", "cents", "qty"]), "product", to
            ),
            "group, many": lambda to: write(
                read("sales", ["customer", "cents", "qty"]), "customer", to
            ),
            "join": lambda to: join("customers", "customer", "region", to),
            "join, small": lambda to: join("products", "product", "category", to),
        }
    )


if __name__ == "__main__":
    main()
