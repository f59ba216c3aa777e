"""Verbs that read files into datasets, and write datasets to files."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lake.cli.verb import argument, open_lake, verb
from lake.statements.export import FORMATS, export_format
from lake.type_options import parse_types
from sennit_core.errors import NotFound
from sennit_core.records import DatasetInfo
from sennit_core.units import format_bytes

__all__ = ["VERBS"]


@verb(
    "put",
    "add files to a dataset, or create it",
    argument("files", nargs="+", type=Path, metavar="FILE"),
    argument(
        "--key",
        action="append",
        metavar="COLUMN",
        help="merge by key, as `upsert` does: a column of the key; may be repeated",
    ),
    argument("--name", help="the dataset; the file's name without its ending by default"),
    argument("--strict", action="store_true", help="fail instead of widening a column type"),
    argument("--delimiter", help="the delimiter of a CSV file; detected by default"),
    argument("--encoding", help="the encoding of a text file; detected by default"),
    argument("--date-order", choices=("dmy", "mdy"), help="order in dates such as 1/2/2026"),
    argument("--encrypt", action="store_true", help="encrypt the datasets that it creates"),
    argument("--sheet", help="the sheet of an Excel workbook; the first by default"),
    argument(
        "--type",
        action="append",
        default=[],
        metavar="COLUMN=TYPE",
        help="a column's type, such as zip=Utf8; inferred by default",
    ),
    argument(
        "--skip-bad-rows", action="store_true", help="leave out rows that do not fit, and keep them"
    ),
    argument(
        "--partition-by",
        action="append",
        metavar="FIELD",
        help="partition it by country, month(ts) or bucket(16, user); may be repeated",
    ),
    argument(
        "--sort-by",
        action="append",
        metavar="FIELD",
        help='sort the rows of a shard by ts or "ts DESC"; may be repeated',
    ),
)
def put(options: argparse.Namespace) -> None:
    wanted = {"strict": options.strict or None, "delimiter": options.delimiter}
    wanted |= {"encoding": options.encoding, "date_order": options.date_order}
    wanted |= {"encrypt": options.encrypt or None}
    wanted |= {"sheet": options.sheet, "columns": parse_types(options.type) or None}
    wanted |= {"on_bad_row": "skip" if options.skip_bad_rows else None}
    wanted |= {"partition_by": options.partition_by, "sort_by": options.sort_by}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    _check_files(options.files)
    from lake.ingestor import dataset_name

    with open_lake(options, create=True) as lake:
        for file in options.files:
            name = options.name or dataset_name(file.name, {})
            if options.key:
                info = lake.upsert(name, file, key=options.key, **chosen)
            else:
                info = lake.append(name, file, **chosen)
            _print_added(options, file, info)


@verb(
    "append",
    "add files to a dataset that exists",
    argument("name", help="a dataset"),
    argument("files", nargs="+", type=Path, metavar="FILE"),
    argument("--strict", action="store_true", help="fail instead of widening a column type"),
)
def append(options: argparse.Namespace) -> None:
    chosen = {"strict": True} if options.strict else {}
    with open_lake(options) as lake:
        _check_files(options.files)
        lake.catalog.get(options.name)  # a misspelt name is to create nothing
        for file in options.files:
            _print_added(options, file, lake.append(options.name, file, **chosen))


@verb(
    "upsert",
    "merge files into a dataset: replace rows with equal keys, add the others; or create it",
    argument("name", help="a dataset"),
    argument("files", nargs="+", type=Path, metavar="FILE"),
    argument(
        "--key",
        action="append",
        required=True,
        metavar="COLUMN",
        help="a column of the key; may be repeated",
    ),
    argument("--encrypt", action="store_true", help="encrypt the dataset if it is created"),
)
def upsert(options: argparse.Namespace) -> None:
    chosen = {"encrypt": True} if options.encrypt else {}
    _check_files(options.files)
    with open_lake(options, create=True) as lake:
        for file in options.files:
            info = lake.upsert(options.name, file, key=options.key, **chosen)
            _print_added(options, file, info)


@verb(
    "rejects",
    "print the rows that `put --skip-bad-rows` left out",
    argument("name", help="a dataset"),
)
def rejects(options: argparse.Namespace) -> None:
    with (
        open_lake(options) as lake,
        lake.storage.rejects.find(lake.catalog.get(options.name)).open("rb") as file,
    ):
        shutil.copyfileobj(file, sys.stdout.buffer)


@verb(
    "export",
    "write a dataset or a query's result to a file",
    argument("source", help="a dataset, or a query"),
    argument("file", type=Path, help="its ending names the format: .csv .parquet …"),
    argument("--format", choices=sorted(set(FORMATS.values())), help="another format"),
)
def export(options: argparse.Namespace) -> None:
    export_format(options.file, options.format)  # before the lake is opened
    with open_lake(options) as lake:
        rows = lake.export(options.source, options.file, options.format)
    size = options.file.stat().st_size
    if options.json:
        print(json.dumps({"file": str(options.file), "rows": rows, "bytes": size}))
    else:
        print(f"{options.file}: {rows:,} rows, {format_bytes(size)}")


@verb(
    "iceberg",
    "write Iceberg metadata of a dataset; print its path",
    argument("name", help="a dataset"),
    argument("--version", type=int, help="a snapshot's number; the newest by default"),
    argument("--out", type=Path, metavar="DIR", help="the Iceberg table's folder"),
)
def iceberg(options: argparse.Namespace) -> None:
    from lake.interop.iceberg import publish_iceberg

    with open_lake(options) as lake:
        path = publish_iceberg(lake, options.name, version=options.version, folder=options.out)
    print(json.dumps({"metadata": str(path)}) if options.json else path)


def _check_files(files: Sequence[Path]) -> None:
    """Refuse missing files before the first is added."""
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise NotFound("file", str(missing))


def _print_added(options: argparse.Namespace, file: Path, info: DatasetInfo) -> None:
    if options.json:
        print(json.dumps(info.to_json()))
    else:
        print(f"{file} -> {info.name}: {info.rows:,} rows in all")


VERBS = (put, append, upsert, rejects, export, iceberg)
