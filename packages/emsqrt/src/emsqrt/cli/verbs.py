"""The function of each command; it receives parsed arguments, and its errors go to the caller."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.cli.console import RunOptions
from emsqrt.cli.running import carry_out, smallest_cap_of
from emsqrt.config import EngineConfig
from emsqrt.io.locations import STANDARD_NAMES
from emsqrt.memory.auto import parse_cap
from emsqrt.plan import Files, Scan, plan_hash, plan_to_json
from sennit_core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from emsqrt.documents import Document
    from emsqrt.pipeline import Pipeline
    from emsqrt.plan import Plan
    from emsqrt.te import Explanation


def run(arguments: argparse.Namespace) -> int:
    """Run a document's pipeline."""
    document = _read(arguments)
    origin = {"path": str(arguments.file), "values": _values(arguments)}
    return _run_capped(document.plan, arguments, document.config, origin)


def explain(arguments: argparse.Namespace) -> int:
    """Print a document's plan, and with a cap its schedule."""
    from emsqrt.pipeline import Pipeline

    document = _read(arguments)
    pipeline = Pipeline(document.plan)
    # Without a named cap there is nothing to schedule for, and the plan alone is shown.
    named = arguments.mem_cap is not None or "mem_cap_bytes" in document.config
    planned = _planned_here(pipeline, arguments, document.config) if named else None
    if arguments.json:
        origin = {"plan": plan_to_json(pipeline.plan), "planHash": plan_hash(pipeline.plan)}
        schedule = None if planned is None else planned.to_json()
        print(json.dumps({**origin, "planned": schedule}, indent=2))
        return 0
    print(pipeline.explain() if planned is None else planned)
    print(pipeline.schema())
    return 0


def _planned_here(
    pipeline: Pipeline, arguments: argparse.Namespace, settings: Mapping[str, Any]
) -> Explanation:
    """Return a plan's schedule with the smallest cap of `run`, which includes planning."""
    from emsqrt.engine import Engine

    config = _configured(arguments, settings)
    planned = pipeline.planned(config.mem_cap_bytes, engine=Engine(config))
    assert planned.schedule is not None, "a cap was named"
    origin = {"path": str(arguments.file), "values": _values(arguments)}
    # The engine's estimate is for a call from Python; a command also plans under the cap.
    least_bytes = smallest_cap_of(pipeline.plan, _run_options(config), origin)["capBytes"]
    return replace(planned, schedule=replace(planned.schedule, c_min_bytes=least_bytes))


def validate(arguments: argparse.Namespace) -> int:
    """Check a document and the files that it reads; print the columns of the result."""
    from emsqrt.pipeline import Pipeline

    print(Pipeline(_read(arguments).plan).schema())
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Run a manifest's plan again; the exit status is 8 when anything differs."""
    from emsqrt.cli.replaying import print_replay

    return print_replay(arguments.manifest, arguments.mem_cap, as_json=arguments.json)


def sort(arguments: argparse.Namespace) -> int:
    """Sort a file."""
    rows = _scan(arguments.source, arguments.encoding)
    keys = [key.strip() for key in arguments.by.split(",")]
    # A top-k holds N rows, where a sort followed by a limit would hold or spill all of them.
    rows = rows.sort(*keys) if arguments.limit is None else rows.top_k(arguments.limit, *keys)
    return _run_capped(_sink(rows, arguments.target, arguments.source), arguments)


def join(arguments: argparse.Namespace) -> int:
    """Join two files."""
    # "a=b" joins a of the left file with b of the right one; "id" alone joins columns of one name.
    pairs = [key.partition("=")[::2] for key in arguments.on.split(",")]
    on = [(left.strip(), right.strip() or left.strip()) for left, right in pairs]
    left, right = (_scan(each, arguments.encoding) for each in (arguments.left, arguments.right))
    rows = left.join(right, on=on, how=arguments.how)
    return _run_capped(_sink(rows, arguments.target, arguments.left), arguments)


def agg(arguments: argparse.Namespace) -> int:
    """Group a file and aggregate."""
    keys = [key.strip() for key in arguments.by.split(",") if key.strip()]
    named, plain = {}, []
    for text in arguments.aggs:
        name, equals, call = text.partition("=")
        # `=` may also be part of an aggregate's argument; what precedes it is then no identifier.
        if equals and name.strip().isidentifier():
            named[name.strip()] = call
        else:
            plain.append(text)
    rows = _scan(arguments.source, arguments.encoding).group_by(*keys).agg(*plain, **named)
    return _run_capped(_sink(rows, arguments.target, arguments.source), arguments)


def sql(arguments: argparse.Namespace) -> int:
    """Run a SELECT over files, and print or write its rows."""
    from emsqrt.cli.querying import answer, run_planned

    if arguments.planned is not None:
        return run_planned(arguments.planned, may_become=arguments.may_become)
    return answer(arguments, _options_of(arguments, _configured(arguments)))


def stats(arguments: argparse.Namespace) -> int:
    """Print statistics of a file's columns."""
    from emsqrt.cli.reports import print_stats

    rows = _scan(arguments.source, arguments.encoding)
    print_stats(rows, _configured(arguments).mem_cap_bytes, as_json=arguments.json)
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Print the smallest caps, and the memory of this machine."""
    from emsqrt.cli.reports import print_doctor

    rows = None if arguments.source is None else _scan(arguments.source, arguments.encoding)
    print_doctor(rows, _run_options(_configured(arguments)), as_json=arguments.json)
    return 0


def _read(arguments: argparse.Namespace) -> Document:
    """Read a document with the values of `--var`; `${env:NAME}` reads environment variables."""
    from emsqrt.documents import read_document

    values = _values(arguments)
    # Stored, because the path is needed again where a trial reads the document a second time.
    arguments.file = _one_file(arguments)
    if not arguments.file.exists():
        raise NotFound(kind="file", name=str(arguments.file))
    return read_document(arguments.file, values, os.environ)


def _one_file(arguments: argparse.Namespace) -> Path:
    """Return the document's path, which may also come from `--pipeline`."""
    named = [path for path in (arguments.file, arguments.pipeline) if path is not None]
    if len(named) != 1:
        raise UsageError(
            "no document is named" if not named else "two documents are named",
            hint="such as emsqrt run flow.yaml",
        )
    return Path(named[0])


def _values(arguments: argparse.Namespace) -> dict[str, str]:
    values = {}
    for named in arguments.var:
        name, equals, value = named.partition("=")
        if not equals:
            raise UsageError(f"--var {named} has no value", hint="write --var NAME=VALUE")
        values[name.strip()] = value
    return values


def _scan(source: str, encoding: str | None = None) -> Pipeline:
    """Begin with a file; standard input is CSV. An encoding is allowed for CSV alone.

    Raises:
        UsageError: the file has another format, and an encoding was named.
    """
    from emsqrt.pipeline import scan

    # Standard input has no suffix that would name its format.
    rows = scan(source, format="csv" if source in STANDARD_NAMES else None)
    if encoding is None:
        return rows
    kind = _files(rows).format
    if kind != "csv":
        raise UsageError(f"--encoding is for CSV, and {source} is {kind}, which is always UTF-8")
    return scan(source, format=kind, **{**_files(rows).options, "encoding": encoding})


def _files(rows: Pipeline) -> Files:
    assert isinstance(rows.plan, Scan)
    assert isinstance(rows.plan.source, Files)
    return rows.plan.source


def _sink(rows: Pipeline, target: str, source: str) -> Plan:
    """End a pipeline in a file; standard output has the format of the source."""
    if target not in STANDARD_NAMES:
        return rows.sink(target).plan
    # The source's options as well, such as its delimiter: what goes through a pipe keeps its
    # dialect.
    files = _files(_scan(source))
    return rows.sink("-", format=files.format, **files.options).plan


def _run_capped(
    plan: Plan,
    arguments: argparse.Namespace,
    settings: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
) -> int:
    options = _options_of(arguments, _configured(arguments, settings))
    options = replace(options, resume=arguments.resume, as_json=arguments.json)
    carry_out(plan, options, may_become=arguments.may_become, document=document)
    return 0


def _options_of(arguments: argparse.Namespace, config: EngineConfig) -> RunOptions:
    # Before the run: the manifest is written at its end, so a long run would end in an error.
    if arguments.manifest is not None and arguments.manifest.is_dir():
        raise UsageError(f"{arguments.manifest} is a folder; name a file for the manifest")
    manifest = None if arguments.manifest is None else str(arguments.manifest)
    return replace(_run_options(config), manifest=manifest, quiet=arguments.quiet)


def _run_options(config: EngineConfig) -> RunOptions:
    return RunOptions(
        cap_bytes=config.mem_cap_bytes,
        spill_dir=None if config.spill_dir is None else str(config.spill_dir),
        spilling=config.spilling,
        seed=config.seed,
    )


def _configured(
    arguments: argparse.Namespace, settings: Mapping[str, Any] | None = None
) -> EngineConfig:
    """Return the settings: flags override the environment, then the document, then defaults."""
    config = EngineConfig.from_environment(settings=settings)
    if arguments.mem_cap is not None:
        config = replace(config, mem_cap_bytes=parse_cap(arguments.mem_cap))
    if arguments.spill_to_memory:
        config = replace(config, spill_to_memory=True)
    if arguments.spill_dir is not None:
        # The flag wins over a URI of the environment or the document, not only over its folder.
        config = replace(config, spill_dir=arguments.spill_dir, spill_uri=None)
    for flag in ("max_parallel", "spill_retry_max_ms"):
        value = getattr(arguments, flag)
        if value is not None and value < 1:
            raise UsageError(f"--{flag.replace('_', '-')} {value} is not a positive number")
    named = {
        "spill_aws_region": arguments.spill_aws_region,
        "spill_retry_max_ms": arguments.spill_retry_max_ms,
        "max_parallel_tasks": arguments.max_parallel,
    }
    return replace(config, **{name: value for name, value in named.items() if value is not None})
