"""Verbs for the stored files: verification, compaction, keys."""

from __future__ import annotations

import argparse
import json
from collections import deque
from pathlib import Path

from lake.cli.output import print_report, print_rows
from lake.cli.verb import argument, one_of, open_lake, verb
from lake.objects.store import ObjectStore, quarantined_path
from sennit_core.errors import UsageError
from sennit_core.units import format_bytes, parse_bytes

__all__ = ["VERBS"]


@verb(
    "compact",
    "make small shards larger ones",
    argument("names", nargs="*", metavar="NAME", help="datasets; all by default"),
)
def compact(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        names = options.names or [info.name for info in lake.catalog.list()]
        for name in names:
            before, info = lake.catalog.get(name).shards, lake.compact(name)
            if options.json:
                print(json.dumps(info.to_json()))
            else:
                print(f"{info.name}: {before} shards became {info.shards}")


@verb(
    "verify",
    "compare stored bytes with hashes",
    argument("name", nargs="?", help="a dataset; all of them by default"),
)
def verify(options: argparse.Namespace) -> int:
    with open_lake(options) as lake:
        return print_report(options, lake.verify(options.name))


@verb(
    "scrub",
    "verify everything, or the rest of an interrupted scrub",
    argument("--rate", metavar="SIZE", help="bytes per second at most, such as 32MiB"),
)
def scrub(options: argparse.Namespace) -> int:
    rate = None if options.rate is None else parse_bytes(options.rate)
    if rate is not None and rate < 1:
        raise UsageError("--rate is 0 bytes per second", hint="leave it out for no limit")
    with open_lake(options) as lake:
        (report,) = deque(lake.scrubber.run_pass(rate_bytes=rate), maxlen=1)
        return print_report(options, report)


@verb(
    "rekey",
    "change the key or passphrase of encrypted datasets",
    one_of(
        argument("--new-key-file", type=Path, metavar="FILE"),
        argument("--new-passphrase-file", type=Path, metavar="FILE"),
    ),
)
def rekey(options: argparse.Namespace) -> None:
    from lake.encryption.keys import read_secret

    secret = read_secret(key_file=options.new_key_file, passphrase_file=options.new_passphrase_file)
    assert secret is not None, "one of the options is required"
    with open_lake(options) as lake:
        count = lake.vault.keys.rotate(secret)
    if options.json:
        print(json.dumps({"keys": count}))
    else:
        print(f"{count:,} data keys are wrapped by the new key; the old one opens nothing any more")


@verb(
    "stats",
    "print what the datasets store, and how much is reclaimable",
    argument("name", nargs="?", help="a dataset; all of them by default"),
)
def stats(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        found = lake.storage.usage(options.name)
        status = lake.storage.status()
    head = ("name", "rows", "stored", "shards", "small", "versions", "reclaimable", "")
    rows = [
        (
            each.name,
            f"{each.rows:,}",
            format_bytes(each.bytes),
            f"{each.shards:,}",
            f"{each.small_shards:,}",
            f"{each.versions:,}",
            format_bytes(each.reclaimable_bytes),
            "damaged" if each.damaged else "",
        )
        for each in found
    ]
    print_rows(options, {"datasets": [each.to_json() for each in found], **status}, head, rows)
    if not options.json:
        objects, size = status["objects"], format_bytes(status["objectBytes"])
        print(f"{objects:,} objects, {size}; {format_bytes(status['freeBytes'])} free")


@verb(
    "gc",
    "delete objects that no version uses",
    argument("--dry-run", action="store_true", help="only count them"),
)
def gc(options: argparse.Namespace) -> None:
    with open_lake(options) as lake:
        unused = lake.retention.unused()
        size = sum(_size(lake.objects, name) for name in unused)
        # No ingest or statement runs in this process, and no other process has the lake open.
        if not options.dry_run:
            lake.reserve.spend(lake.retention.sweep)
        waiting = lake.retention.retired
    if options.json:
        document = {"objects": len(unused), "bytes": size, "dryRun": options.dry_run}
        print(json.dumps({**document, "waiting": waiting}))
        return
    verb = "would be deleted" if options.dry_run else "deleted"
    later = f"; {waiting:,} wait for their grace time" if waiting else ""
    print(f"{len(unused):,} objects, {format_bytes(size)}, {verb}{later}")


def _size(objects: ObjectStore, name: str) -> int:
    for path in (objects.place(name), quarantined_path(objects.place(name))):
        if path.exists():
            return path.stat().st_size
    return 0


@verb("doctor", "examine the folder, and say what to do about each finding")
def doctor(options: argparse.Namespace) -> int:
    from lake.maintenance.doctor import examine

    found = list(examine(options.data, lambda: open_lake(options)))
    rows = [(each.level, each.check, each.found, each.advice) for each in found]
    print_rows(options, [each.to_json() for each in found], ("", "check", "found", "do"), rows)
    return 1 if any(each.level == "error" for each in found) else 0


VERBS = (compact, stats, gc, verify, scrub, doctor, rekey)
