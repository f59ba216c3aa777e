"""The process of one peer: `python peer.py REQUEST`, SQL in, a file out.

It imports nothing but the peer, because any other memory would count against the peer. REQUEST is
JSON: engine, sql, tables (name to path), types (table to columns), target, spill, threads,
limit_bytes (None keeps the peer's own defaults), batch_rows.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Request = Mapping[str, Any]

_ROW_GROUP_ROWS, _ROW_GROUP_ROWS_CAPPED = 122880, 20480
"""A row group's columns stay in memory until it is written."""
_CSV_BUFFER_BYTES = 4_000_000
"""DuckDB's `buffer_size` of read_csv under a cap: its default, 32 MB, is held as one block."""


def run_duckdb(asked: Request) -> None:
    """Copy a query's rows to the target, without insertion order, as DuckDB's guide advises."""
    connection = import_module("duckdb").connect()
    connection.execute(f"set temp_directory = '{asked['spill']}'")
    connection.execute(f"set threads = {asked['threads']}")
    if asked["limit_bytes"] is not None:
        connection.execute(f"set memory_limit = '{asked['limit_bytes'] >> 10}KiB'")
        connection.execute("set preserve_insertion_order = false")
    for name, path in asked["tables"].items():
        connection.execute(
            f"create view {name} as select * from {_duckdb_reader(asked, name, path)}"
        )
    kind = "format csv, header"
    if _is_parquet(asked["target"]):
        kind = f"format parquet, compression snappy, row_group_size {_row_group_rows(asked)}"
    connection.execute(f"copy ({asked['sql']}) to '{asked['target']}' ({kind})")


def _duckdb_reader(asked: Request, name: str, path: str) -> str:
    if _is_parquet(path):
        return f"read_parquet('{path}')"
    options = ""
    if types := asked["types"].get(name):
        options += f", types = {json.dumps(types)}".replace('"', "'")
    if asked["limit_bytes"] is not None:
        options += f", buffer_size = {_CSV_BUFFER_BYTES}"
    return f"read_csv('{path}'{options})"


def run_datafusion(asked: Request) -> None:
    """Write a query's rows to the target, with a pool that spilling operators share."""
    datafusion: Any = import_module("datafusion")
    runtime = datafusion.RuntimeEnvBuilder().with_temp_file_path(asked["spill"])
    settings = datafusion.SessionConfig().with_target_partitions(asked["threads"])
    if asked["limit_bytes"] is not None:
        limit = asked["limit_bytes"]
        runtime = runtime.with_fair_spill_pool(limit)
        settings = settings.with_batch_size(asked["batch_rows"]).set(
            "datafusion.execution.sort_spill_reservation_bytes", str(max(limit // 10, 1 << 20))
        )
        hashed = "true" if asked["threads"] > 1 else "false"  # only its sort-merge join spills
        settings = settings.set("datafusion.optimizer.prefer_hash_join", hashed)
    context = datafusion.SessionContext(settings, runtime)
    for name, path in asked["tables"].items():
        if _is_parquet(path):
            context.register_parquet(name, path)
        else:
            _register_csv(context, name, path, asked["types"].get(name))
    frame = context.sql(asked["sql"])
    if _is_parquet(asked["target"]):
        frame.write_parquet(asked["target"], compression="snappy")
    else:
        frame.write_csv(asked["target"], with_header=True)


def _register_csv(context: Any, name: str, path: str, types: Mapping[str, str] | None) -> None:
    context.register_csv(name, path)
    if not types:
        return
    arrow: Any = import_module("pyarrow")
    inferred = context.table(name).schema()
    fields = [
        arrow.field(
            f.name, arrow.decimal128(*_decimal(types[f.name])) if f.name in types else f.type
        )
        for f in inferred
    ]
    context.deregister_table(name)
    context.register_csv(name, path, schema=arrow.schema(fields))


def run_polars(asked: Request) -> None:
    """Sink a query's rows into the target with the streaming engine."""
    polars: Any = import_module("polars")
    frames = {}
    for name, path in asked["tables"].items():
        types = asked["types"].get(name, {})
        decimals = {column: polars.Decimal(*_decimal(text)) for column, text in types.items()}
        frames[name] = (
            polars.scan_parquet(path)
            if _is_parquet(path)
            else polars.scan_csv(path, try_parse_dates=True, schema_overrides=decimals)
        )
    query = polars.SQLContext(frames).execute(asked["sql"], eager=False)
    target, rows = asked["target"], _row_group_rows(asked)
    if _is_parquet(target):
        query.sink_parquet(target, compression="snappy", row_group_size=rows, engine="streaming")
    else:
        query.sink_csv(target, engine="streaming")


def _row_group_rows(asked: Request) -> int:
    return _ROW_GROUP_ROWS if asked["limit_bytes"] is None else _ROW_GROUP_ROWS_CAPPED


def _decimal(text: str) -> tuple[int, int]:
    precision, scale = text.removeprefix("DECIMAL(").removesuffix(")").split(",")
    return int(precision), int(scale)


def _is_parquet(path: str) -> bool:
    return path.endswith(".parquet")


PEERS: dict[str, Callable[[Request], None]] = {
    "datafusion": run_datafusion,
    "duckdb": run_duckdb,
    "polars": run_polars,
}

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    try:
        PEERS[request["engine"]](request)
    except BaseException as error:  # noqa: BLE001 - a peer's last word is shown as it is
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)
    os._exit(0)  # exclude the teardown from the measurements
