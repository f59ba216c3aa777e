"""Verbs for datasets and their rows."""

from __future__ import annotations

import argparse
import json
import sys

from lake.cli.output import SHOWN_ROWS, print_result, print_rows
from lake.cli.verb import argument, open_lake, verb
from lake.sql.types import quoted
from lake.statements.script_text import read_script
from lake.statements.text_tables import cell
from sennit_core.errors import UsageError
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
    argument("--views", action="store_true", help="list the views"),
)
def ls(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        if options.name is not None:
            info = lake.catalog.get(options.name)
            rows: list[tuple[str, ...]] = [(f.name, str(f.type)) for f in info.schema.fields]
            print_rows(options, info.to_json(), ("column", "type"), rows)
            return
        views = lake.catalog.views.all()
        found = lake.catalog.list()
        locked = "locked" if lake.vault.keys.is_locked else "encrypted"
    if options.views:
        rows = [(view.name, cell(view.sql), view.damaged or "") for view in views]
        print_rows(options, [view.to_json() for view in views], ("name", "query", ""), rows)
        return
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
    rows += [(view.name, "", "", "", "view") for view in views]
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
    "show",
    "print the first rows of a dataset",
    argument("name", help="a dataset"),
    argument("-n", "--rows", type=int, default=10, metavar="N", help="how many, 10 by default"),
    argument("--csv", action="store_true", help="print them as CSV"),
)
def show(options: argparse.Namespace) -> None:
    if options.rows < 0:
        raise UsageError("--rows is below 0")
    form = "csv" if options.csv else "json"
    with open_lake(options) as lake:
        info = lake.catalog.get(options.name)
        query = f"SELECT * FROM {quoted(info.name)} LIMIT {options.rows}"
        with lake.run(query, format=form, read_only=True) as execution:
            print_result(options, execution)
    if not options.csv and not options.json and info.rows > options.rows:
        print(f"{options.rows:,} of {info.rows:,} rows", file=sys.stderr)


@verb(
    "delete",
    "delete the rows of a dataset that meet a condition",
    argument("name", help="a dataset"),
    argument("where", metavar="WHERE", help='a condition in SQL, such as "km > 1000"'),
    argument("--dry-run", action="store_true", help="only count them"),
)
def delete(options: argparse.Namespace) -> None:
    if not options.where.strip():
        raise UsageError("the condition is empty", hint='"true" deletes every row')
    with open_lake(options) as lake:
        table = quoted(lake.catalog.get(options.name).name)
        # On a line of its own, so that a comment at its end hides nothing.
        where = f"WHERE (\n{options.where}\n)"
        if read_script(f"SELECT 1 {where}") is not None:
            raise UsageError("the condition ends before its end, at a semicolon")
        # What follows a condition in a DELETE, as RETURNING, is an error here.
        lake.sql(f"EXPLAIN SELECT count(*) FROM {table} {where}")
        if options.dry_run:
            rows = lake.sql(f"SELECT count(*) FROM {table} {where}").value
        else:
            rows = lake.sql(f"DELETE FROM {table} {where}").value
        left = lake.catalog.get(options.name).rows
    if options.json:
        print(
            json.dumps({"deleted": 0 if options.dry_run else rows, "matching": rows, "rows": left})
        )
    else:
        verb = "would be deleted from" if options.dry_run else "deleted from"
        print(f"{rows:,} rows {verb} {options.name}: {left:,} rows in all")


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


VERBS = (init, ls, show, sql, delete, rename, rm)
