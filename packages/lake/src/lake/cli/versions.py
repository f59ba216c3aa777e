"""Verbs for the versions of a dataset."""

from __future__ import annotations

import argparse
import json

from lake.cli.output import SHOWN_ROWS, print_result, print_rows, shown_time
from lake.cli.verb import argument, open_lake, verb
from lake.statements.text_tables import cell
from sennit_core.errors import UsageError
from sennit_core.units import format_bytes

__all__ = ["VERBS"]


@verb("snapshots", "list a dataset's snapshots", argument("name", help="a dataset"))
def snapshots(options: argparse.Namespace) -> None:
    from lake.catalog.origins import snapshot_document

    with open_lake(options) as lake:
        found = lake.catalog.snapshots(options.name)
    head = ("version", "time", "rows", "bytes", "author", "statement")
    rows = [
        (
            str(each.snapshot.version),
            shown_time(each.created_at),
            f"{each.rows:,}",
            format_bytes(each.bytes),
            each.snapshot.author,
            cell(each.snapshot.query or ""),
        )
        for each in found
    ]
    print_rows(options, [snapshot_document(each) for each in found], head, rows)


@verb(
    "rollback",
    "give a dataset the rows of an earlier version",
    argument("name", help="a dataset"),
    argument("version", type=int, help="its number, from `lake snapshots`"),
)
def rollback(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        info = lake.rollback(options.name, options.version)
        head = lake.catalog.manifest(info.id).snapshot.version
    if options.json:
        print(json.dumps(info.to_json()))
    else:
        print(f"{info.name}: version {head} has the {info.rows:,} rows of {options.version}")


@verb(
    "diff",
    "print what changed between two versions",
    argument("name", help="a dataset"),
    argument("since", help="the earlier version, or its tag"),
    argument("until", nargs="?", help="the later one; the newest by default"),
    argument("--csv", action="store_true", help="print every row as CSV"),
)
def diff(options: argparse.Namespace) -> None:
    since, until = map(_version, (options.since, options.until))
    assert since is not None, "argparse requires it"
    with open_lake(options) as lake:
        limit = None if options.csv or options.json else SHOWN_ROWS
        form = "csv" if options.csv else "json"
        with lake.changes(options.name, since, until, format=form, max_rows=limit) as execution:
            print_result(options, execution)


def _version(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


@verb(
    "tag",
    "list, give or remove tags of versions",
    argument("name", help="a dataset"),
    argument("tag", nargs="?", help="list the tags without it"),
    argument("version", nargs="?", type=int, help="its number, from `lake snapshots`"),
    argument("--delete", action="store_true", help="remove the tag"),
)
def tag(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
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
    print_rows(options, versions, ("tag", "version"), [(t, str(v)) for t, v in versions.items()])


@verb(
    "expire",
    "remove old snapshots, and the objects that only they used",
    argument("name", help="a dataset"),
    argument("--keep", type=int, default=1, metavar="N", help="the newest that stay"),
    argument("--days", type=float, default=0.0, help="only those that were replaced so long ago"),
)
def expire(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        gone = lake.expire(
            options.name, keep=options.keep, older_than_seconds=options.days * 86_400
        )
    if options.json:
        print(json.dumps({"versions": list(gone)}))
    else:
        print(f"{len(gone)} snapshots of {options.name} expired")


VERBS = (snapshots, rollback, diff, tag, expire)
