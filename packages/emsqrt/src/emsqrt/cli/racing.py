"""The command that races engines: `emsqrt race FILE sort|join|agg --cap 64MiB`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from emsqrt.memory.auto import parse_cap
from sennit_core.errors import UsageError, nearest
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from emsqrt.race import Contender

_TIMEOUT_SECONDS = 300.0


def add_race(verb: argparse.ArgumentParser) -> None:
    """Add the options of `race`."""
    verb.description = (
        "Run EM-√ and those of DuckDB, Polars, DataFusion and GNU sort that are installed, one after "
        "the other, each in its own process under the same cap, enforced from outside: a process "
        "tree that holds more (RssAnon + RssShmem, polled every 5 ms) is killed."
    )
    verb.add_argument("source", type=Path, metavar="FILE", help=".csv or .parquet")
    verb.add_argument("work", choices=("sort", "join", "agg"))
    verb.add_argument(
        "--cap", default="64MiB", metavar="SIZE", help="memory cap, such as 64MiB (default)"
    )
    verb.add_argument(
        "--by", default="", metavar="KEYS", help="keys, such as a,b:desc (default: first column)"
    )
    verb.add_argument(
        "--right", type=Path, metavar="FILE", help="join with FILE (default: with itself)"
    )
    verb.add_argument(
        "--aggs",
        nargs="+",
        default=[],
        metavar="AGG",
        help="aggregates (default: count(*) and two sums)",
    )
    verb.add_argument(
        "--engines", default="", metavar="NAMES", help="engines, such as em,duckdb (default: all)"
    )
    verb.add_argument("--timeout", type=float, default=_TIMEOUT_SECONDS, metavar="SECONDS")
    verb.add_argument("--scratch", type=Path, metavar="DIR", help="folder for outputs and spill")
    verb.add_argument("--svg", type=Path, metavar="FILE", help="draw the race as an SVG image")
    verb.add_argument("--json", action="store_true", help="print everything as JSON")
    verb.add_argument("--plain", action="store_true", help="no drawing, no colour")
    verb.set_defaults(command=race_engines)


def race_engines(arguments: argparse.Namespace) -> int:
    """Race the engines, show the result, and return 0 even if a peer wins or fails."""
    from emsqrt.race import Screen, finals, picture, race, work_for

    cap_bytes = parse_cap(arguments.cap)
    contenders = _chosen(arguments.engines)
    keys = [key.strip() for key in arguments.by.split(",") if key.strip()]
    source = arguments.source.absolute()
    right = None if arguments.right is None else arguments.right.absolute()
    work = work_for(arguments.work, source, keys, right=right, aggs=arguments.aggs)
    title = f"{work.title}, under {format_bytes(cap_bytes)}"
    plain = False if arguments.plain else None
    out = sys.stderr if arguments.json else sys.stdout
    screen = Screen(out, cap_bytes, live=plain, colour=plain)
    screen.says(title)
    screen.says("RssAnon + RssShmem of each process tree, from outside, every 5 ms")
    if arguments.scratch is not None:
        arguments.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emsqrt-race-", dir=arguments.scratch) as folder:
        results = race(
            work, cap_bytes, contenders, Path(folder), screen, timeout_seconds=arguments.timeout
        )
    screen.sums_up(results)
    if arguments.svg is not None:
        arguments.svg.write_text(picture(title, cap_bytes, results), encoding="utf-8")
        screen.says(f"drawn in {arguments.svg}")
    if arguments.json:
        counted = [each.name for each in finals(results) if each.well]
        document = {
            "title": title,
            "capBytes": cap_bytes,
            "sql": work.sql,
            "through": counted,
            "attempts": [each.to_json() for each in results],
        }
        print(json.dumps(document, indent=1))
    return 0


def _chosen(names: str) -> list[Contender]:
    from emsqrt.race import CONTENDERS

    by_word = {_word(each.name): each for each in CONTENDERS}
    words = [_word(name) for name in names.split(",") if name.strip()] or list(by_word)
    for word in words:
        if word not in by_word:
            guess = nearest(word, tuple(by_word))
            raise UsageError(
                f"there is no engine {word!r}; there are {', '.join(by_word)}",
                hint=f"did you mean {guess}?" if guess else None,
            )
    return [by_word[word] for word in words]


def _word(name: str) -> str:
    """Return how a name is typed on the command line: `em`, `duckdb`, `gnusort`."""
    word = "".join(letter for letter in name.lower() if letter.isascii() and letter.isalnum())
    return "em" if word in ("em", "emsqrt", "ems") else word
