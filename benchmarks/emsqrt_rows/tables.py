"""Rows of work, raced under their caps round by round, and printed as tables with ratios."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import emsqrt
import sennit_core
from emsqrt.race import (
    CONTENDERS,
    Attempt,
    Contender,
    MemorySample,
    RaceQuery,
    Result,
    disagreeing,
    finals,
    race,
)
from emsqrt_rows.data import Tables
from sennit_core.units import MIB, format_bytes

__all__ = ["Row", "main"]

_OURS = CONTENDERS[0].name
_OVER_BYTES, _OVER_SHARE = 2 * MIB, 0.05


@dataclass(frozen=True)
class Row:
    """Work under a cap.

    Args:
        key: what `--rows` calls it.
        work: makes the work, given the tables and a scratch folder; data may be made first.
        cap_mib: the cap on each process tree in MiB; None for as much as they like.
        goal: what is to be reached.
        quick: whether `--quick` has it.
        heavy: only run when it is named.
        peers: engines beside ours, all when None.
        ours: how ours is run; from the command line when None.
    """

    key: str
    work: Callable[[Tables, Path, bool], RaceQuery]
    cap_mib: int | None
    goal: str
    quick: bool = True
    heavy: bool = False
    peers: Sequence[str] | None = None
    ours: Contender | None = None


def main(doc: str, rows: Sequence[Row]) -> None:
    """Run the rows that the command line asks for and print a table of each."""
    asked = _arguments(doc, rows)
    _compile_modules()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended, and tidied up
    _print_machine()
    chosen = [row for row in rows if row.key in asked.rows.split(",")] if asked.rows else None
    if chosen is None:
        chosen = [row for row in rows if not row.heavy and (row.quick or not asked.quick)]
    found: list[tuple[Row, list[Result]]] = []
    if asked.scratch is not None:
        asked.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.scratch) as folder:
        scratch = Path(folder)
        tables = Tables(asked.data or scratch / "data")
        for row in chosen:
            results = _run(row, tables, scratch / "run", asked)
            _print_table(row, results)
            found.append((row, results))
    _print_overshoot(found)
    if asked.json:
        document = [
            {"row": row.key, "goal": row.goal, "results": [r.to_json() for r in results]}
            for row, results in found
        ]
        asked.json.write_text(json.dumps(document, indent=1) + "\n")


def _compile_modules() -> None:
    """Have our modules compiled, as an installed package has them, whatever was edited just now."""
    for package in (emsqrt, sennit_core):
        compileall.compile_dir(str(Path(package.__path__[0])), quiet=2)


def _arguments(doc: str, rows: Sequence[Row]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of TPC-H data, made when missing")
    parser.add_argument("--scratch", type=Path, help="folder on a disk for outputs and spill")
    parser.add_argument("--rows", default="", help=f"comma list of {','.join(r.key for r in rows)}")
    parser.add_argument(
        "--engines", default="", help="comma list of parts of names; all when empty"
    )
    parser.add_argument("--rounds", type=int, default=1, help="the best CPU time of so many counts")
    parser.add_argument("--timeout", type=float, default=300, help="seconds one run may take")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, fewer rows")
    parser.add_argument("--json", type=Path, help="write every run's figures here")
    asked = parser.parse_args()
    if unknown := {name for name in asked.rows.split(",") if name} - {row.key for row in rows}:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    return asked


def _run(row: Row, tables: Tables, scratch: Path, asked: argparse.Namespace) -> list[Result]:
    """Race the row's work; every further round is for those who got through."""
    work = row.work(tables, scratch, asked.quick)
    cap_bytes = None if row.cap_mib is None else row.cap_mib * MIB
    contenders = [each for each in CONTENDERS if _wanted(each, row, asked.engines)]
    if row.ours is not None:
        contenders[0] = row.ours
    best: dict[str, Result] = {}
    for _ in range(asked.rounds):
        raced = race(
            work, cap_bytes, contenders, scratch, _Told(row), timeout_seconds=asked.timeout
        )
        for each in finals(raced):
            known = best.get(each.name)
            if known is None or (each.well, -each.ended.cpu_seconds) > (
                known.well,
                -known.ended.cpu_seconds,
            ):
                best[each.name] = each
        contenders = [each for each in contenders if each.name in best and best[each.name].well]
    return list(best.values())


def _wanted(contender: Contender, row: Row, engines: str) -> bool:
    if contender.name == _OURS:
        return True
    named = [part.strip().lower() for part in engines.split(",") if part.strip()]
    asked = not named or any(part in contender.name.lower() for part in named)
    return asked and (row.peers is None or contender.name in row.peers)


class _Told:
    """Tells on standard error how far a row is."""

    def __init__(self, row: Row) -> None:
        self._row = row

    def on_start(self, name: str, version: str, attempt: Attempt) -> None:
        print(f"{self._row.key}: {name} {version}, {attempt.settings}", file=sys.stderr, flush=True)

    def on_sample(self, look: MemorySample) -> None:
        pass

    def on_end(self, result: Result) -> None:
        ended = result.ended
        figures = f"{ended.cpu_seconds:.2f} CPU s, peak {format_bytes(ended.peak_bytes)}"
        print(f"    {result.how_it_ended()}; {figures}", file=sys.stderr, flush=True)

    def on_skip(self, name: str, reason: str) -> None:
        print(f"{self._row.key}: {name} does not take part: {reason}", file=sys.stderr)


def _print_table(row: Row, results: Sequence[Result]) -> None:
    cap = "no cap" if row.cap_mib is None else f"{row.cap_mib} MiB"
    print(f"\n### {row.key}: {cap}; to reach: {row.goal}\n")
    print("| engine | CPU s | wall s | CPU, ours is 1 | peak MiB | spilled MB | how it ended |")
    print("|---|---|---|---|---|---|---|")
    ours = next((r.ended.cpu_seconds for r in results if r.name == _OURS and r.well), None)
    for each in results:
        ended = each.ended
        ratio = f"{ended.cpu_seconds / ours:.2f}" if ours and each.well else ""
        print(
            f"| {each.name} {each.version} | {ended.cpu_seconds:.2f} | {ended.wall_seconds:.2f} | {ratio} "
            f"| {ended.peak_bytes / MIB:.1f} | {ended.spilled_bytes / 1e6:.0f} | {each.how_it_ended()} |"
        )
    for name in disagreeing(results):
        print(f"\n**{name} gave another answer than {results[0].name}.**")
    sys.stdout.flush()


def _print_overshoot(found: Sequence[tuple[Row, list[Result]]]) -> None:
    ours = [
        (row, each)
        for row, results in found
        for each in results
        if each.name == _OURS and each.own_figures
    ]
    if not ours:
        return
    print("\n### Memory as reported and as measured from outside, MiB\n")
    print("| row | cap | measured | reported | apart | within |\n|---|---|---|---|---|---|")
    for row, each in ours:
        seen, told = each.ended.peak_bytes, each.own_figures["peakBytes"]
        near = abs(told - seen) <= max(_OVER_BYTES, seen * _OVER_SHARE)
        held = row.cap_mib is None or seen <= row.cap_mib * MIB
        cap = "-" if row.cap_mib is None else str(row.cap_mib)
        print(
            f"| {row.key} | {cap} | {seen / MIB:.1f} | {told / MIB:.1f} | {(told - seen) / MIB:+.1f} "
            f"| {'yes' if near and held else 'NO'} |"
        )


def _print_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"python {platform.python_version()}, {cores} CPUs, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{each.name} {each.version() or 'is not installed'}" for each in CONTENDERS))
