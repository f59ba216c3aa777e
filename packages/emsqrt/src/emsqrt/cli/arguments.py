"""The commands and options of the command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from emsqrt.cli import verbs
from emsqrt.cli.racing import add_race

if TYPE_CHECKING:
    _Verbs: TypeAlias = "argparse._SubParsersAction[_Verb]"  # noqa: SLF001


# Synonyms; the first one names the parsed argument.
CAP_FLAGS = ("--mem-cap", "--cap", "--memory-cap")


class _Help(argparse.HelpFormatter):
    """A help formatter that reads the terminal's width itself: `shutil` costs half a MiB."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_terminal_columns() - 2)


class _Parser(argparse.ArgumentParser):
    """A parser whose subcommand parsers use the same help formatter."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _Help, **settings})


class _Verb(_Parser):
    """A command's parser, which shows that command's usage when an argument is unknown."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Here rather than in the main parser, which would print the usage of all commands.
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown)}")
        return parsed, unknown

    def _hint(self, unknown: list[str]) -> str:
        """Return a hint for unknown flags: another engine's flag translated, or the closest."""
        from emsqrt.cli.other_flags import hint_for

        known = [option for action in self._actions for option in action.option_strings]
        hints = (hint_for(word, known) for word in unknown if word.startswith("-"))
        return next((f"; {hint}" for hint in hints if hint), "")


class _Version(argparse.Action):
    """Print the version; it is looked up only when asked for, because that costs memory."""

    def __init__(self, option_strings: list[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"emsqrt {version('sennit-emsqrt')}")
        parser.exit()


def _terminal_columns() -> int:
    try:
        # The same order as `shutil.get_terminal_size`: the variable, the terminal, 80.
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def parser() -> argparse.ArgumentParser:
    """Return the parser; the parsed arguments hold each command's function as `command`."""
    whole: argparse.ArgumentParser = _Parser(
        prog="emsqrt", description="Run plans over files under a hard memory cap."
    )
    whole.add_argument("--version", action=_Version, help="print the version")
    made = whole.add_subparsers(required=True, metavar="VERB", parser_class=_Verb)
    _add_documents(made)
    _add_sql(made)
    _add_files(made)
    _add_reports(made)
    return whole


def _add_documents(made: _Verbs) -> None:
    run = made.add_parser("run", help="run a pipeline and print a summary")
    _add_document(run)
    _add_capped(run)
    run.set_defaults(command=verbs.run)
    explain = made.add_parser("explain", help="print a pipeline's plan, schedule and hash")
    _add_document(explain)
    explain.add_argument(*CAP_FLAGS, metavar="SIZE", help="plan for this cap")
    explain.add_argument("--json", action="store_true", help="print it as JSON")
    _add_spilling(explain)
    explain.set_defaults(command=verbs.explain)
    again = made.add_parser("replay", help="run a manifest's plan again and compare its outputs")
    again.add_argument("manifest", type=Path, metavar="MANIFEST", help="written by --manifest")
    again.add_argument(*CAP_FLAGS, metavar="SIZE", help="another cap than the first run's")
    again.add_argument("--json", action="store_true", help="print the findings as JSON")
    again.set_defaults(command=verbs.replay)
    validate = made.add_parser("validate", help="check a pipeline: names, types, files")
    _add_document(validate)
    validate.set_defaults(command=verbs.validate)


def _add_sql(made: _Verbs) -> None:
    sql = made.add_parser("sql", help="run a SELECT over files and show its rows")
    sql.add_argument(
        "statement",
        nargs="?",
        metavar="SELECT",
        help="such as \"select city, count(*) from 'people.parquet' group by city\"; "
        "- reads it from standard input",
    )
    sql.add_argument("-f", "--file", type=Path, metavar="FILE", help="read the statement from FILE")
    sql.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="write the rows to FILE, which appears when it is complete",
    )
    formats = sql.add_mutually_exclusive_group()
    formats.add_argument(
        "--format",
        choices=("table", "csv", "tsv", "json", "jsonl", "parquet", "arrow"),
        help="format of the rows (default: a table on a terminal, by the suffix of FILE, else csv)",
    )
    for name in ("csv", "json", "jsonl"):
        formats.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, help=f"--format {name}"
        )
    sql.add_argument(
        "--table",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="use FILE as table NAME in the statement; repeatable",
    )
    sql.add_argument(
        "--rows", type=int, default=40, metavar="N", help="most rows shown in a table (default: 40)"
    )
    _add_cap(sql)
    _add_spilling(sql)
    _add_output_options(sql)
    # Internal: a descriptor with the plan, from the process that parsed the statement (`querying`).
    sql.add_argument("--planned", type=int, help=argparse.SUPPRESS)
    sql.set_defaults(command=verbs.sql)


def _add_files(made: _Verbs) -> None:
    sort = made.add_parser("sort", help="sort a file")
    _add_source(sort, "SRC")
    _add_encoding(sort)
    sort.add_argument("target", metavar="DST", help="output file; - is standard output")
    sort.add_argument("--by", required=True, metavar="KEYS", help="sort keys, such as a,b:desc")
    sort.add_argument("--limit", type=int, metavar="N", help="keep only the first N rows")
    _add_capped(sort)
    sort.set_defaults(command=verbs.sort)
    join = made.add_parser("join", help="join two files")
    join.add_argument("left", metavar="LEFT", help="a file or a glob; the output keeps its order")
    join.add_argument("right", metavar="RIGHT", help="a file or a glob")
    join.add_argument("target", metavar="DST", help="output file; - is standard output")
    _add_encoding(join)
    join.add_argument("--on", required=True, metavar="KEYS", help="join keys, such as id or a=b,c")
    join.add_argument(
        "--how",
        default="inner",
        help="join type: inner, left, right, full, semi or anti (default: inner)",
    )
    _add_capped(join)
    join.set_defaults(command=verbs.join)
    agg = made.add_parser("agg", help="group a file and aggregate")
    _add_source(agg, "SRC")
    _add_encoding(agg)
    agg.add_argument("target", metavar="DST", help="output file; - is standard output")
    agg.add_argument(
        "--by",
        default="",
        metavar="KEYS",
        help="columns to group by, such as city,year (default: one group)",
    )
    agg.add_argument(
        "aggs", nargs="+", metavar="AGG", help='aggregates, such as "n=count(*)" or "sum(amount)"'
    )
    _add_capped(agg)
    agg.set_defaults(command=verbs.agg)


def _add_reports(made: _Verbs) -> None:
    stats = made.add_parser(
        "stats", help="print count, minimum, maximum, NULLs and distinct values of each column"
    )
    stats.add_argument("source", metavar="FILE")
    _add_encoding(stats)
    _add_capped(stats)
    stats.set_defaults(command=verbs.stats)
    doctor = made.add_parser(
        "doctor", help="print the smallest memory cap of each command for a file"
    )
    doctor.add_argument("source", metavar="FILE", nargs="?")
    _add_encoding(doctor)
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    _add_spilling(doctor)
    # It has no cap flag, but the settings are read by a function that looks for one.
    doctor.set_defaults(command=verbs.doctor, mem_cap=None)
    add_race(made.add_parser("race", help="race EM-√ and its peers under one cap, live"))


def _add_document(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", type=Path, nargs="?", help="YAML or JSON steps, or plan JSON")
    verb.add_argument("-p", "--pipeline", type=Path, metavar="FILE", help="the same as FILE alone")
    verb.add_argument(
        "--var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replace ${NAME} in the document by VALUE; repeatable",
    )


def _add_source(verb: argparse.ArgumentParser, name: str) -> None:
    verb.add_argument("source", metavar=name, help="a file or a glob; - is standard input")


def _add_encoding(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of a CSV file that is not UTF-8: latin-1, windows-1252, …",
    )


def _add_capped(verb: argparse.ArgumentParser) -> None:
    _add_cap(verb)
    _add_spilling(verb)
    verb.add_argument(
        "--resume",
        metavar="NAME",
        help="keep a checkpoint under NAME when the run is killed, and resume from it",
    )
    _add_output_options(verb)
    verb.add_argument("--json", action="store_true", help="print the whole manifest as JSON")


def _add_cap(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        *CAP_FLAGS,
        metavar="SIZE",
        help='memory cap of the process, such as 64MiB, or "auto" (default: 512MiB)',
    )


def _add_output_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--manifest", type=Path, metavar="FILE", help="write the manifest to FILE")
    verb.add_argument("--quiet", action="store_true", help="print nothing")


def _add_spilling(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        *("--spill-dir", "--spill-uri"),
        metavar="PLACE",
        help="spill location: a folder, or s3://, gs:// or az://",
    )
    verb.add_argument("--spill-aws-region", metavar="REGION", help="region of the s3:// bucket")
    verb.add_argument(
        "--spill-retry-max-ms",
        type=int,
        metavar="MS",
        help="retry a failed transfer for at most MS milliseconds",
    )
    verb.add_argument(
        *("--max-parallel", "--threads"),
        type=int,
        metavar="N",
        help="1 runs the plan on one thread",
    )
    verb.add_argument(
        "--spill-to-memory",
        action="store_true",
        help="spill even if the folder is in memory (tmpfs); the spill counts toward the cap",
    )
