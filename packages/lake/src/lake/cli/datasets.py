"""Verbs for datasets and their rows."""

from __future__ import annotations

import argparse
import json
import sys

from lake.cli.output import SHOWN_ROWS, print_result, print_rows
from lake.cli.verb import argument, open_lake, verb
from sennit_core.units import format_bytes

__all__ = ["VERBS"]


@verb("init", "create an empty lake")
def init(options: argparse.Namespace) -> None:
    with open_lake(options, create=True) as lake:
        print(
            json.dumps({"data": str(lake.folder)}) if options.json else f"{lake.folder} is a lake"
        )


@verb(
    "ls",
    "list the datasets, or describe one",
    argument("name", nargs="?", help="a dataset: list its columns"),
)
def ls(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        if options.name is not None:
            info = lake.catalog.get(options.name)
            rows: list[tuple[str, ...]] = [(f.name, str(f.type)) for f in info.schema.fields]
            print_rows(options, info.to_json(), ("column", "type"), rows)
            return
        found = lake.catalog.list()
        locked = "locked" if lake.vault.keys.is_locked else "encrypted"
    head = ("name", "rows", "stored", "id", "")
    rows = [
        (
            each.name,
            f"{each.rows:,}",
            format_bytes(each.bytes),
            each.id,
            "damaged" if each.damaged else locked if each.encrypted else "",
        )
        for each in found
    ]
    print_rows(options, [each.to_json() for each in found], head, rows)


@verb(
    "sql",
    "run a SQL statement",
    argument("query", help="one statement; - reads it from standard input"),
    argument("--csv", action="store_true", help="print every row as CSV"),
    argument("--engine", choices=("auto", "duckdb", "emsqrt"), default="auto"),
    argument("--memory", default="1GiB", metavar="SIZE", help="memory limit, 1GiB by default"),
)
def sql(options: argparse.Namespace) -> None:
    query = sys.stdin.read() if options.query == "-" else options.query
    whole = options.csv or options.json
    with (
        open_lake(options) as lake,
        lake.run(
            query,
            format="csv" if options.csv else "json",
            max_rows=None if whole else SHOWN_ROWS,
            engine=options.engine,
        ) as execution,
    ):
        print_result(options, execution)


@verb(
    "rename",
    "give a dataset another name",
    argument("name", help="a dataset"),
    argument("to", metavar="NEW", help="its new name"),
)
def rename(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        info = lake.catalog.rename(lake.catalog.get(options.name).id, options.to)
    print(json.dumps(info.to_json()) if options.json else f"{options.name} is {info.name} now")


@verb("rm", "delete datasets with all snapshots", argument("names", nargs="+", metavar="NAME"))
def rm(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        for name in options.names:
            info = lake.delete(name)
            print(json.dumps(info.to_json()) if options.json else f"deleted {info.name}")


VERBS = (init, ls, sql, rename, rm)
