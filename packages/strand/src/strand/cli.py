"""The `strand` command: inspect and list rings, remove abandoned ones, measure this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sennit_core.errors import SennitError, UsageError
from sennit_core.units import format_bytes, parse_duration
from strand.bench import measure_machine
from strand.follow import describe, follow
from strand.inspection import RingFacts, cleanup, inspect_ring, inspect_rings, list_rings
from strand.segment import segment_path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 on failure; exit with 2 on wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SennitError as error:
        print(f"strand: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
    except OSError as error:
        print(f"strand: {error}", file=sys.stderr)
    return 1


class _Version(argparse.Action):
    """Print the version; reading it is slow, so it is read only for this option."""

    def __init__(self, option_strings: list[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"strand {version('sennit-strand')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="strand", description=__doc__)
    parser.add_argument("--version", action=_Version, help="print the version")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    inspect = verbs.add_parser(
        "inspect", help="show a ring's header, schema, counters and processes"
    )
    inspect.add_argument(
        "ring",
        help="name of a ring, or path of its file (/proc/PID/fd/N too); NAME#3: member 3 of a fan-in",
    )
    inspect.add_argument("--follow", action="store_true", help="repeat until the stream has ended")
    inspect.add_argument(
        "--every", default="500ms", metavar="TIME", help="interval of --follow, 500ms by default"
    )
    inspect.add_argument("--json", action="store_true", help="print JSON, one document per line")
    inspect.set_defaults(run=_inspect)
    listing = verbs.add_parser("ls", help="list this user's named rings")
    listing.add_argument("--prefix", default="", help="only names that start with PREFIX")
    listing.add_argument("--json", action="store_true", help="print JSON, one document per line")
    listing.set_defaults(run=_ls)
    clean = verbs.add_parser("cleanup", help="remove named rings that no process uses any more")
    clean.add_argument("--prefix", default="", help="only names that start with PREFIX")
    clean.add_argument(
        "--dry-run", action="store_true", help="print what would be removed, remove nothing"
    )
    clean.set_defaults(run=_cleanup)
    bench = verbs.add_parser("bench", help="measure rings on this machine, compared with a pipe")
    bench.add_argument("--json", action="store_true", help="print one JSON document")
    bench.set_defaults(run=_bench)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    path = Path(options.ring)
    if "/" not in options.ring:
        name, mark, member = options.ring.partition("#")
        path = Path(f"{segment_path(name)}{mark}{member}")
    if options.follow:
        every = parse_duration(options.every)
        if every <= 0:
            raise UsageError(f"--every needs a time above zero, not {options.every}")
        with contextlib.suppress(KeyboardInterrupt):
            follow(path, every, as_json=options.json)
        return 0
    found = [inspect_ring(path)] if "#" in options.ring else inspect_rings(path)
    for facts in found:
        if options.json:
            print(json.dumps(facts.to_json()))
        elif len(found) > 1:
            print(_summarize(facts))
        else:
            print("\n".join(describe(facts)))
    return 0


def _ls(options: argparse.Namespace) -> int:
    for found in list_rings(options.prefix):
        if isinstance(found, RingFacts):
            print(json.dumps(found.to_json()) if options.json else _summarize(found))
        else:
            path, error = found
            print(
                json.dumps({"path": path, "error": str(error)})
                if options.json
                else f"{path}  {error}"
            )
    return 0


def _cleanup(options: argparse.Namespace) -> int:
    for path in cleanup(options.prefix, dry_run=options.dry_run):
        print(f"{'would remove' if options.dry_run else 'removed'} {path}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    measurements = measure_machine(None if options.json else _print_line)
    if options.json:
        print(json.dumps([measurement.to_json() for measurement in measurements]))
    return 0


def _print_line(line: str) -> None:
    print(line, flush=True)


def _summarize(facts: RingFacts) -> str:
    holders = [f"{owner.role} {owner.pid} {owner.state}" for owner in facts.owners if owner.pid]
    holders += [
        f"consumer {reader.index} {reader.pid} {reader.state}"
        for reader in facts.consumers
        if reader.pid
    ]
    commit, read = facts.counters["commit"], facts.counters["read"]
    size = format_bytes(facts.total_bytes)
    state = f"v{facts.version}  {size}  {facts.status}  {read}/{commit} read"
    return f"{facts.path}  {state}  {', '.join(holders)}"


if __name__ == "__main__":
    sys.exit(main())
