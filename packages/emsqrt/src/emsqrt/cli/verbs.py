"""What each verb does; arguments come parsed, errors go up."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from emsqrt.cli.console import Order
from emsqrt.cli.running import carry_out
from emsqrt.config import EngineConfig
from emsqrt.memory.auto import parse_cap
from sennit_core.errors import UsageError

if TYPE_CHECKING:
    from emsqrt.pipeline import Pipeline
    from emsqrt.plan import Plan


def run(arguments: argparse.Namespace) -> int:
    """Run a document's pipeline."""
    return _run_capped(_read(arguments), arguments)


def explain(arguments: argparse.Namespace) -> int:
    """Print a document's plan."""
    from emsqrt.pipeline import Pipeline

    pipeline = Pipeline(_read(arguments))
    print(pipeline.explain())
    print(pipeline.schema())
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """Check a document and the files it reads; print the columns that would come out."""
    from emsqrt.pipeline import Pipeline

    print(Pipeline(_read(arguments)).schema())
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Run a manifest's plan again; the status is 8 when anything is not as it was."""
    from emsqrt.cli.replaying import print_replay

    return print_replay(arguments.manifest, arguments.mem_cap, as_json=arguments.json)


def sort(arguments: argparse.Namespace) -> int:
    """Sort a file."""
    rows = _scan(arguments.source)
    keys = [key.strip() for key in arguments.by.split(",")]
    rows = rows.sort(*keys) if arguments.limit is None else rows.top_k(arguments.limit, *keys)
    return _run_capped(_sink(rows, arguments.target, arguments.source), arguments)


def join(arguments: argparse.Namespace) -> int:
    """Join two files."""
    pairs = [key.partition("=")[::2] for key in arguments.on.split(",")]
    on = [(left.strip(), right.strip() or left.strip()) for left, right in pairs]
    rows = _scan(arguments.left).join(_scan(arguments.right), on=on, how=arguments.how)
    return _run_capped(_sink(rows, arguments.target, arguments.left), arguments)


def agg(arguments: argparse.Namespace) -> int:
    """Group a file and aggregate."""
    keys = [key.strip() for key in arguments.by.split(",") if key.strip()]
    named, plain = {}, []
    for text in arguments.aggs:
        name, equals, call = text.partition("=")
        if equals and name.strip().isidentifier():
            named[name.strip()] = call
        else:
            plain.append(text)
    rows = _scan(arguments.source).group_by(*keys).agg(*plain, **named)
    return _run_capped(_sink(rows, arguments.target, arguments.source), arguments)


def stats(arguments: argparse.Namespace) -> int:
    """Print what a file's columns hold."""
    from emsqrt.cli.reports import print_stats

    print_stats(arguments.source, _cap_bytes(arguments), as_json=arguments.json)
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Print the smallest caps, and what this machine has."""
    from emsqrt.cli.reports import print_doctor

    print_doctor(arguments.source, as_json=arguments.json)
    return 0


def _read(arguments: argparse.Namespace) -> Plan:
    from emsqrt.steps import read_plan_file

    return read_plan_file(arguments.file)


def _scan(source: str) -> Pipeline:
    from emsqrt.pipeline import scan

    return scan(source, format="csv" if source == "-" else None)


def _sink(rows: Pipeline, target: str, source: str) -> Plan:
    """End a pipeline in a file; standard output has the format of the source."""
    kind = "csv" if target == "-" and (source == "-" or source.endswith(".csv")) else None
    return rows.sink(target, format=kind).plan


def _run_capped(plan: Plan, arguments: argparse.Namespace) -> int:
    spill_dir = arguments.spill_dir or EngineConfig.from_environment().spill_dir
    order = Order(
        cap_bytes=_cap_bytes(arguments),
        spill_dir=None if spill_dir is None else str(spill_dir),
        manifest=None if arguments.manifest is None else str(arguments.manifest),
        as_json=arguments.json,
        quiet=arguments.quiet,
    )
    if arguments.manifest is not None and arguments.manifest.is_dir():
        raise UsageError(f"{arguments.manifest} is a folder; name a file for the manifest")
    carry_out(plan, order, may_become=arguments.may_become)
    return 0


def _cap_bytes(arguments: argparse.Namespace) -> int:
    if arguments.mem_cap is None:
        return EngineConfig.from_environment().mem_cap_bytes
    return parse_cap(arguments.mem_cap)
