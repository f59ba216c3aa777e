"""Verbs for what happens to old versions, and to rows that must go."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from lake.cli.output import print_rows, shown_time
from lake.cli.verb import argument, open_lake, verb
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from lake.maintenance.tasks import Step

__all__ = ["VERBS"]

_DAY_SECONDS = 86_400.0


@verb(
    "maintenance",
    "list the tasks of maintenance, or run one",
    argument("action", nargs="?", choices=("run",), help="run a task now"),
    argument("task", nargs="?", help="its name, from the list"),
)
def maintenance(options: argparse.Namespace) -> None:
    if (options.action is None) != (options.task is None):
        raise UsageError("a task goes with `run`", hint="lake maintenance run compact")
    with open_lake(options) as lake:
        if options.task is not None:
            _print_step(options, lake.maintenance.run(options.task))
            return
        found = lake.maintenance.to_json()
    head = ("task", "last", "changed", "skipped", "problem")
    rows = [
        (
            each["task"],
            shown_time(each["finishedAt"]),
            f"{each['changed']:,}",
            f"{each['skipped']:,}",
            each.get("problem") or "",
        )
        for each in found
    ]
    print_rows(options, found, head, rows)


def _print_step(options: argparse.Namespace, step: Step) -> None:
    if options.json:
        print(json.dumps({"task": options.task, **step.to_json()}))
        return
    print(f"{options.task}: {step.changed:,} changed, {step.skipped:,} skipped")
    if step.problem:
        print(step.problem, file=sys.stderr)


@verb(
    "retention",
    "print or set which versions of a dataset maintenance keeps",
    argument("name", help="a dataset"),
    argument("--keep", type=int, metavar="N", help="versions that stay; 0 keeps all"),
    argument("--days", type=float, help="only those that were replaced so long ago"),
    argument("--clear", action="store_true", help="remove the rule: the lake's own applies"),
)
def retention(options: argparse.Namespace) -> None:
    if options.clear and options.keep is not None:
        raise UsageError("--keep and --clear contradict each other", hint="use one of them")
    if options.days is not None and not options.keep:
        raise UsageError("--days goes with --keep", hint="--keep 1 --days 30")
    from lake.maintenance.retention_rules import RetentionRule

    with open_lake(options) as lake:
        rules = lake.storage.retention_rules
        if options.clear:
            rule = rules.set(options.name, None)
        elif options.keep is not None:
            older = (options.days or 0.0) * _DAY_SECONDS
            rule = rules.set(options.name, RetentionRule(options.keep, older))
        else:
            rule = rules.get(options.name)
    if options.json:
        print(json.dumps(rule.to_json()))
    elif not rule.keep:
        print(f"every version of {options.name} stays")
    else:
        days = rule.older_than_seconds / _DAY_SECONDS
        print(f"the newest {rule.keep:,} stay, and those replaced in the last {days:g} days")


@verb(
    "purge",
    "remove rows from every version of a dataset, and every copy of them",
    argument("name", help="a dataset"),
    argument("where", metavar="WHERE", help="a condition in SQL, such as \"email = 'a@b.c'\""),
    argument("--yes", action="store_true", help="do not ask; there is no way back"),
)
def purge(options: argparse.Namespace) -> int | None:
    if not options.yes and not _is_confirmed(options.name):
        print("nothing was removed", file=sys.stderr)
        return 1
    with open_lake(options) as lake:
        report = lake.purge(options.name, options.where)
    if options.json:
        print(json.dumps(report.to_json()))
    else:
        print(
            f"{report.rows:,} rows left {options.name}, {report.rows_all:,} in all its versions; "
            f"{report.shards:,} shards were written anew"
        )
    return None


def _is_confirmed(name: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            "a purge asks first, and standard input is no terminal", hint="--yes does not ask"
        )
    print(f"Remove these rows from every version of {name}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


VERBS = (maintenance, retention, purge)
