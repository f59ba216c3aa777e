"""The `lake` command: work with the datasets of a folder, without a node."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lake.export import FORMATS, export_format, export_query, write_file
from lake.type_options import parse_types
from sennit_core.errors import NotFound, SennitError, UsageError
from sennit_core.text import escape_controls
from sennit_core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.running import RunningStatement
    from lake.scrub import ScrubReport

__all__ = ["main"]

_SHOWN_ROWS = 1000
_CELL_CHARACTERS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 on failure or damage, 2 on invalid usage."""
    options = _parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SennitError as error:
        print(f"lake: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return status or 0


class _Version(argparse.Action):
    """Print the version; reading it is slow, so it is read only for `--version`."""

    def __init__(self, option_strings: list[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"lake {version('sennit-lake')}")
        parser.exit()


_Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lake",
        description="Work on the lake in a folder. While a node has the folder open, use `platform`.",
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", required=True, type=Path, metavar="DIR", help="the lake's folder")
    common.add_argument("--json", action="store_true", help="print JSON")

    keys = common.add_mutually_exclusive_group()
    keys.add_argument("--key-file", type=Path, metavar="FILE", help="unlocks encrypted datasets")
    keys.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="the same, by its first line"
    )

    init = verbs.add_parser("init", parents=[common], help="create an empty lake")
    init.set_defaults(run=_init)

    listing = verbs.add_parser("ls", parents=[common], help="list the datasets, or describe one")
    listing.add_argument("name", nargs="?", help="a dataset: list its columns")
    listing.set_defaults(run=_ls)

    _add_put(verbs, common)

    sql = verbs.add_parser("sql", parents=[common], help="run a SQL statement")
    sql.add_argument("query", help="one statement; - reads it from standard input")
    sql.add_argument("--csv", action="store_true", help="print every row as CSV")
    sql.add_argument("--engine", choices=("auto", "duckdb", "emsqrt"), default="auto")
    sql.add_argument(
        "--memory", default="1GiB", metavar="SIZE", help="memory limit, 1GiB by default"
    )
    sql.set_defaults(run=_sql)

    export = verbs.add_parser(
        "export", parents=[common], help="write a dataset or a query's result to a file"
    )
    export.add_argument("source", help="a dataset, or a query")
    export.add_argument("file", type=Path, help="its ending names the format: .csv .parquet …")
    export.add_argument("--format", choices=sorted(set(FORMATS.values())), help="another format")
    export.set_defaults(run=_export)

    _add_version_verbs(verbs, common)
    _add_iceberg(verbs, common)

    rejects = verbs.add_parser(
        "rejects", parents=[common], help="print the rows that `put --skip-bad-rows` left out"
    )
    rejects.add_argument("name", help="a dataset")
    rejects.set_defaults(run=_rejects)

    check = verbs.add_parser("verify", parents=[common], help="compare stored bytes with hashes")
    check.add_argument("name", nargs="?", help="a dataset; all of them by default")
    check.set_defaults(run=_verify)

    _add_storage_verbs(verbs, common)

    remove = verbs.add_parser("rm", parents=[common], help="delete datasets with all snapshots")
    remove.add_argument("names", nargs="+", metavar="NAME")
    remove.set_defaults(run=_rm)
    return parser


def _add_put(verbs: _Verbs, common: argparse.ArgumentParser) -> None:
    put = verbs.add_parser("put", parents=[common], help="add files to a dataset, or create it")
    put.add_argument("files", nargs="+", type=Path, metavar="FILE")
    put.add_argument("--name", help="the dataset; the file's name without its ending by default")
    put.add_argument("--strict", action="store_true", help="fail instead of widening a column type")
    put.add_argument("--delimiter", help="the delimiter of a CSV file; detected by default")
    put.add_argument("--encoding", help="the encoding of a text file; detected by default")
    put.add_argument("--date-order", choices=("dmy", "mdy"), help="order in dates such as 1/2/2026")
    put.add_argument("--encrypt", action="store_true", help="encrypt the datasets that it creates")
    put.add_argument("--sheet", help="the sheet of an Excel workbook; the first by default")
    put.add_argument(
        "--type",
        action="append",
        default=[],
        metavar="COLUMN=TYPE",
        help="a column's type, such as zip=Utf8; inferred by default",
    )
    put.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows that do not fit, and keep them"
    )
    put.set_defaults(run=_put)


def _add_storage_verbs(verbs: _Verbs, common: argparse.ArgumentParser) -> None:
    scrub = verbs.add_parser(
        "scrub", parents=[common], help="verify everything, or the rest of an interrupted scrub"
    )
    scrub.add_argument("--rate", metavar="SIZE", help="bytes per second at most, such as 32MiB")
    scrub.set_defaults(run=_scrub)

    rekey = verbs.add_parser(
        "rekey", parents=[common], help="change the key or passphrase of encrypted datasets"
    )
    new = rekey.add_mutually_exclusive_group(required=True)
    new.add_argument("--new-key-file", type=Path, metavar="FILE")
    new.add_argument("--new-passphrase-file", type=Path, metavar="FILE")
    rekey.set_defaults(run=_rekey)


def _add_version_verbs(verbs: _Verbs, common: argparse.ArgumentParser) -> None:
    history = verbs.add_parser("snapshots", parents=[common], help="list a dataset's snapshots")
    history.add_argument("name", help="a dataset")
    history.set_defaults(run=_snapshots)

    back = verbs.add_parser(
        "rollback", parents=[common], help="give a dataset the rows of an earlier version"
    )
    back.add_argument("name", help="a dataset")
    back.add_argument("version", type=int, help="its number, from `lake snapshots`")
    back.set_defaults(run=_rollback)

    rename = verbs.add_parser("rename", parents=[common], help="give a dataset another name")
    rename.add_argument("name", help="a dataset")
    rename.add_argument("to", metavar="NEW", help="its new name")
    rename.set_defaults(run=_rename)

    diff = verbs.add_parser(
        "diff", parents=[common], help="print what changed between two versions"
    )
    diff.add_argument("name", help="a dataset")
    diff.add_argument("since", help="the earlier version, or its tag")
    diff.add_argument("until", nargs="?", help="the later one; the newest by default")
    diff.add_argument("--csv", action="store_true", help="print every row as CSV")
    diff.set_defaults(run=_diff)

    tag = verbs.add_parser("tag", parents=[common], help="list, give or remove tags of versions")
    tag.add_argument("name", help="a dataset")
    tag.add_argument("tag", nargs="?", help="list the tags without it")
    tag.add_argument("version", nargs="?", type=int, help="its number, from `lake snapshots`")
    tag.add_argument("--delete", action="store_true", help="remove the tag")
    tag.set_defaults(run=_tag)

    expire = verbs.add_parser(
        "expire", parents=[common], help="remove old snapshots, and the objects that only they used"
    )
    expire.add_argument("name", help="a dataset")
    expire.add_argument("--keep", type=int, default=1, metavar="N", help="the newest that stay")
    expire.add_argument(
        "--days", type=float, default=0.0, help="only those that were replaced so long ago"
    )
    expire.set_defaults(run=_expire)

    compact = verbs.add_parser("compact", parents=[common], help="make small shards larger ones")
    compact.add_argument("names", nargs="*", metavar="NAME", help="datasets; all by default")
    compact.set_defaults(run=_compact)


def _add_iceberg(verbs: _Verbs, common: argparse.ArgumentParser) -> None:
    iceberg = verbs.add_parser(
        "iceberg", parents=[common], help="write Iceberg metadata of a dataset; print its path"
    )
    iceberg.add_argument("name", help="a dataset")
    iceberg.add_argument("--version", type=int, help="a snapshot's number; the newest by default")
    iceberg.add_argument("--out", type=Path, metavar="DIR", help="the Iceberg table's folder")
    iceberg.set_defaults(run=_iceberg)


def _open(options: argparse.Namespace, *, create: bool = False) -> Lake:
    from lake.lake import Lake

    if not create and not (options.data / "lake").is_dir():
        raise NotFound(
            "lake in",
            str(options.data),
            hint="`lake put FILE --data DIR` or `lake init --data DIR` creates one",
        )
    return Lake(
        options.data,
        memory_bytes=parse_bytes(getattr(options, "memory", "1GiB")),
        key_file=options.key_file,
        passphrase_file=options.passphrase_file,
    )


def _init(options: argparse.Namespace) -> None:
    with _open(options, create=True) as lake:
        print(
            json.dumps({"data": str(lake.folder)}) if options.json else f"{lake.folder} is a lake"
        )


def _ls(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        if options.name is not None:
            info = lake.catalog.get(options.name)
            rows: list[tuple[str, ...]] = [(f.name, str(f.type)) for f in info.schema.fields]
            _print(options, info.to_json(), ("column", "type"), rows)
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
    _print(options, [each.to_json() for each in found], head, rows)


def _put(options: argparse.Namespace) -> None:
    wanted = {"strict": options.strict or None, "delimiter": options.delimiter}
    wanted |= {"encoding": options.encoding, "date_order": options.date_order}
    wanted |= {"encrypt": options.encrypt or None}
    wanted |= {"sheet": options.sheet, "columns": parse_types(options.type) or None}
    wanted |= {"on_bad_row": "skip" if options.skip_bad_rows else None}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    missing = next((file for file in options.files if not file.is_file()), None)
    if missing is not None:
        raise NotFound("file", str(missing))
    from lake.ingestor import dataset_name

    with _open(options, create=True) as lake:
        for file in options.files:
            info = lake.append(options.name or dataset_name(file.name, {}), file, **chosen)
            if options.json:
                print(json.dumps(info.to_json()))
            else:
                print(f"{file} -> {info.name}: {info.rows:,} rows in all")


def _sql(options: argparse.Namespace) -> None:
    query = sys.stdin.read() if options.query == "-" else options.query
    whole = options.csv or options.json
    with (
        _open(options) as lake,
        lake.run(
            query,
            format="csv" if options.csv else "json",
            max_rows=None if whole else _SHOWN_ROWS,
            engine=options.engine,
        ) as execution,
    ):
        _print_result(options, execution)


def _print_result(options: argparse.Namespace, execution: RunningStatement) -> None:
    if options.csv or options.json:
        for piece in execution.payloads():
            sys.stdout.buffer.write(piece)
        if options.json:
            sys.stdout.buffer.write(b"\n")
        return
    document = json.loads(b"".join(bytes(piece) for piece in execution.payloads()))
    columns = [column["name"] for column in document["columns"]]
    _print_table(columns, [[_cell(value) for value in row] for row in document["rows"]])
    if document["truncated"]:
        print(f"The first {_SHOWN_ROWS:,} rows; --csv or --json prints all.", file=sys.stderr)


def _export(options: argparse.Namespace) -> None:
    form = export_format(options.file, options.format)
    with _open(options) as lake:
        is_dataset = lake.catalog.find(options.source) is not None
        query = export_query(options.source, is_dataset=is_dataset)
        with lake.run(query, format=form, read_only=True) as execution:
            size = write_file(options.file, execution.payloads())
            rows = execution.result()["rows"]
    if options.json:
        print(json.dumps({"file": str(options.file), "rows": rows, "bytes": size}))
    else:
        print(f"{options.file}: {rows:,} rows, {format_bytes(size)}")


def _snapshots(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        found = lake.catalog.snapshots(options.name)
    head = ("version", "time", "rows", "bytes", "author", "statement")
    rows = [
        (
            str(each.snapshot.version),
            datetime.fromtimestamp(each.created_at, UTC).isoformat(sep=" ", timespec="seconds"),
            f"{each.rows:,}",
            format_bytes(each.bytes),
            each.snapshot.author,
            _cell(each.snapshot.query or ""),
        )
        for each in found
    ]
    _print(options, [replace(each.snapshot, shards=()).to_json() for each in found], head, rows)


def _iceberg(options: argparse.Namespace) -> None:
    from lake.interop.iceberg import publish_iceberg

    with _open(options) as lake:
        path = publish_iceberg(lake, options.name, version=options.version, folder=options.out)
    print(json.dumps({"metadata": str(path)}) if options.json else path)


def _rollback(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        info = lake.rollback(options.name, options.version)
        head = lake.catalog.manifest(info.id).snapshot.version
    if options.json:
        print(json.dumps(info.to_json()))
    else:
        print(f"{info.name}: version {head} has the {info.rows:,} rows of {options.version}")


def _rejects(options: argparse.Namespace) -> None:
    with (
        _open(options) as lake,
        lake.storage.rejects.find(lake.catalog.get(options.name)).open("rb") as file,
    ):
        shutil.copyfileobj(file, sys.stdout.buffer)


def _rename(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        info = lake.catalog.rename(lake.catalog.get(options.name).id, options.to)
    print(json.dumps(info.to_json()) if options.json else f"{options.name} is {info.name} now")


def _diff(options: argparse.Namespace) -> None:
    since, until = map(_version, (options.since, options.until))
    assert since is not None, "argparse requires it"
    with _open(options) as lake:
        limit = None if options.csv or options.json else _SHOWN_ROWS
        form = "csv" if options.csv else "json"
        with lake.changes(options.name, since, until, format=form, max_rows=limit) as execution:
            _print_result(options, execution)


def _version(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _tag(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        if options.tag is not None and options.delete:
            lake.catalog.set_tag(options.name, options.tag, None)
        elif options.tag is not None:
            if options.version is None:
                raise UsageError("a tag needs a version", hint="`lake snapshots NAME` lists them")
            lake.tag(options.name, options.tag, options.version)
        tags = lake.catalog.tags(options.name)
        versions = {
            tag: lake.catalog.manifest(options.name, snapshot).snapshot.version
            for tag, snapshot in tags.items()
        }
    _print(options, versions, ("tag", "version"), [(t, str(v)) for t, v in versions.items()])


def _expire(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        gone = lake.expire(
            options.name, keep=options.keep, older_than_seconds=options.days * 86_400
        )
    if options.json:
        print(json.dumps({"versions": list(gone)}))
    else:
        print(f"{len(gone)} snapshots of {options.name} expired")


def _compact(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        names = options.names or [info.name for info in lake.catalog.list()]
        for name in names:
            before, info = lake.catalog.get(name).shards, lake.compact(name)
            if options.json:
                print(json.dumps(info.to_json()))
            else:
                print(f"{info.name}: {before} shards became {info.shards}")


def _verify(options: argparse.Namespace) -> int:
    with _open(options) as lake:
        return _print_report(options, lake.verify(options.name))


def _scrub(options: argparse.Namespace) -> int:
    rate = None if options.rate is None else parse_bytes(options.rate)
    if rate is not None and rate < 1:
        raise UsageError("--rate is 0 bytes per second", hint="leave it out for no limit")
    with _open(options) as lake:
        (report,) = deque(lake.scrubber.run_pass(rate_bytes=rate), maxlen=1)
        return _print_report(options, report)


def _rekey(options: argparse.Namespace) -> None:
    from lake.keys import read_secret

    secret = read_secret(key_file=options.new_key_file, passphrase_file=options.new_passphrase_file)
    assert secret is not None, "one of the options is required"
    with _open(options) as lake:
        count = lake.vault.keys.rotate(secret)
    if options.json:
        print(json.dumps({"keys": count}))
    else:
        print(f"{count:,} data keys are wrapped by the new key; the old one opens nothing any more")


def _print_report(options: argparse.Namespace, report: ScrubReport) -> int:
    if options.json:
        print(json.dumps(report.to_json()))
        return 1 if report.findings else 0
    for finding in report.findings:
        print(escape_controls(finding.problem))
    damaged = len({finding.dataset_id for finding in report.findings})
    counts = f"{report.datasets:,} datasets, {report.objects:,} objects"
    result = f"{damaged:,} datasets damaged" if damaged else "no damage"
    aside = f", {report.quarantined:,} objects in quarantine" if report.quarantined else ""
    print(f"{counts}, {format_bytes(report.bytes_done)} read: {result}{aside}")
    return 1 if report.findings else 0


def _rm(options: argparse.Namespace) -> None:
    with _open(options) as lake:
        for name in options.names:
            info = lake.delete(name)
            print(json.dumps(info.to_json()) if options.json else f"deleted {info.name}")


def _print(
    options: argparse.Namespace, document: Any, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    if options.json:
        print(json.dumps(document))
    else:
        _print_table(head, rows)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in columns, with control characters escaped."""
    lines = [[escape_controls(text) for text in row] for row in (head, *rows)]
    columns: Iterator[tuple[str, ...]] = zip(*lines, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for row in lines:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = escape_controls(text)
    return text if len(text) <= _CELL_CHARACTERS else f"{text[: _CELL_CHARACTERS - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
