"""The `strand` command: look at rings, list them, remove abandoned ones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sennit_core.errors import SennitError
from sennit_core.units import format_bytes
from strand.inspection import RingFacts, cleanup, inspect_ring, list_rings
from strand.segment import segment_path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it worked, 1 when what it was asked for failed, 2 for bad usage."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="strand", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    inspect = verbs.add_parser("inspect", help="show a ring's header, schema, counters and owners")
    inspect.add_argument("ring", help="a ring's name, or the path of its file (/proc/PID/fd/N too)")
    inspect.add_argument("--json", action="store_true", help="print one JSON document")
    inspect.set_defaults(run=_inspect)
    listing = verbs.add_parser("ls", help="list this user's named rings")
    listing.add_argument("--prefix", default="", help="only names that start so")
    listing.add_argument("--json", action="store_true", help="print one JSON document a line")
    listing.set_defaults(run=_ls)
    clean = verbs.add_parser("cleanup", help="remove named rings that nobody holds any more")
    clean.add_argument("--prefix", default="", help="only names that start so")
    clean.add_argument("--dry-run", action="store_true", help="only say what would go")
    clean.set_defaults(run=_cleanup)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    path = Path(options.ring) if "/" in options.ring else segment_path(options.ring)
    facts = inspect_ring(path)
    if options.json:
        print(json.dumps(facts.to_json()))
    else:
        print(_describe(facts))
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


def _summarize(facts: RingFacts) -> str:
    owners = ", ".join(f"{o.role} {o.pid} {o.state}" for o in facts.owners if o.pid)
    commit, read = facts.counters["commit"], facts.counters["read"]
    size = format_bytes(facts.total_bytes)
    return f"{facts.path}  v{facts.version}  {size}  {facts.status}  {read}/{commit} read  {owners}"


def _describe(facts: RingFacts) -> str:
    layout = f"v{facts.version}, {facts.records} slots of {facts.stride} bytes"
    sizes = f"heap {format_bytes(facts.heap_bytes)}, {format_bytes(facts.total_bytes)} in all"
    asked = ", abort asked for" if facts.aborted else ""
    reason = f": {facts.reason}" if facts.reason else ""
    counters = ", ".join(f"{name} {value}" for name, value in facts.counters.items())
    owners = ", ".join(f"{o.role} {o.pid} {o.state}" for o in facts.owners) or "unknown"
    lines = [
        facts.path,
        f"  layout    {layout}, {sizes}",
        f"  status    {facts.status}{asked}{reason}",
        f"  counters  {counters}",
        f"  owners    {owners}",
        "  fields",
    ]
    for field in facts.fields:
        notes = [field["type"], *(["nullable"] if field["nullable"] else [])]
        notes += [f"sorted {field['order']}"] if field["order"] else []
        lines.append(f"    {field['offset']:5}  {field['name']}: {', '.join(notes)}")
    return "\n".join(lines)
