"""`emsqrt run FILE.json` and `emsqrt explain FILE.json`: the engine without a node.

Exit status: 0 done, 1 failed, 2 the request makes no sense, 3 the memory cap is in the way.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sennit_core.errors import CapacityError, SennitError, UsageError

EXIT_FAILED, EXIT_USAGE, EXIT_CAP = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.command(parsed)
    except SennitError as error:
        print(f"emsqrt: {error}", file=sys.stderr)
        if error.hint:
            print(f"        {error.hint}", file=sys.stderr)
        return _exit_status(error)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emsqrt", description="Run plans over files under a hard memory cap."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="run a plan and print its manifest")
    run.add_argument("file", type=Path, help="plan JSON, or a document of steps")
    run.add_argument("--mem-cap", metavar="SIZE", help="such as 64MiB (default: 512MiB)")
    run.add_argument("--spill-dir", type=Path, metavar="DIR", help="where the run may spill")
    run.add_argument("--json", action="store_true", help="print the whole manifest as JSON")
    run.set_defaults(command=_run)
    explain = verbs.add_parser("explain", help="print a plan's operators, columns and hash")
    explain.add_argument("file", type=Path, help="plan JSON, or a document of steps")
    explain.set_defaults(command=_explain)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from emsqrt.engine import Engine, EngineConfig
    from emsqrt.steps import read_plan_file

    config = EngineConfig.from_environment()
    if arguments.spill_dir is not None:
        config = replace(config, spill_dir=arguments.spill_dir)
    plan = read_plan_file(arguments.file)
    manifest = Engine(config).run(plan, mem_cap=arguments.mem_cap)
    if arguments.json:
        print(json.dumps(manifest.to_json(), indent=2))
        return 0
    from sennit_core.units import format_bytes, format_duration

    for sink in manifest.sinks:
        print(f"{sink.target}: {sink.rows} rows, {format_bytes(sink.bytes)}")
    print(
        f"{manifest.rows_in} rows read in {format_duration(manifest.seconds)}; "
        f"memory {format_bytes(manifest.peak_bytes)} of {format_bytes(manifest.cap_bytes)}; "
        f"plan {manifest.plan_hash[:12]}"
    )
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from emsqrt.pipeline import Pipeline
    from emsqrt.steps import read_plan_file

    pipeline = Pipeline(read_plan_file(arguments.file))
    print(pipeline.explain())
    print(pipeline.schema())
    return 0


def _exit_status(error: SennitError) -> int:
    if isinstance(error, CapacityError):
        return EXIT_CAP
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
