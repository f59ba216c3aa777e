"""Verbs for the stored files: verification, compaction, keys."""

from __future__ import annotations

import argparse
import json
from collections import deque
from pathlib import Path

from lake.cli.output import print_report
from lake.cli.verb import argument, one_of, open_lake, verb
from sennit_core.errors import UsageError
from sennit_core.units import parse_bytes

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
    from lake.keys import read_secret

    secret = read_secret(key_file=options.new_key_file, passphrase_file=options.new_passphrase_file)
    assert secret is not None, "one of the options is required"
    with open_lake(options) as lake:
        count = lake.vault.keys.rotate(secret)
    if options.json:
        print(json.dumps({"keys": count}))
    else:
        print(f"{count:,} data keys are wrapped by the new key; the old one opens nothing any more")


VERBS = (compact, verify, scrub, rekey)
