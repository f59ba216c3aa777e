"""The engines: settings of each for a cap, best published ones first, and its command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Protocol

from emsqrt.environment import LEAN_ENVIRONMENT
from emsqrt.race.work import RaceQuery
from sennit_core.units import MIB, format_bytes

THREADS_MAX = 4
_PEER = Path(__file__).with_name("peer.py")
_BATCH_ROWS, _BATCH_ROWS_LITTLE = 8192, 2048
_LITTLE_BYTES = 512 * MIB
_LIMIT_BYTES_MIN = 8 * MIB


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to run a contender.

    Args:
        settings: the settings, as text.
        command: words.
        environment: its variables in addition to this process's own.
        manifest: a file in which the engine reports its own peak, None when it does not.
    """

    settings: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    manifest: Path | None = None


@dataclass(frozen=True, slots=True)
class AttemptFiles:
    """Where one attempt writes: `target` is a new file, `spill` an empty folder."""

    target: Path
    spill: Path


class Contender(Protocol):
    """One engine of a race."""

    name: str

    def version(self) -> str | None:
        """Return the installed version, None when the engine is not installed."""

    def why_not(self, work: RaceQuery) -> str | None:
        """Return why it cannot do the work, None when it may try."""

    def attempts(
        self, work: RaceQuery, cap_bytes: int | None, place: AttemptFiles
    ) -> list[Attempt]:
        """Return ways to run it, best first; the first one that succeeds counts."""


class Ours:
    """EM-√, by its command line, with the cap as an option."""

    name = "EM-√"

    def version(self) -> str | None:
        """Return this package's version."""
        return metadata.version("sennit-emsqrt")

    def why_not(self, work: RaceQuery) -> str | None:
        """Return None: it supports every job of a race."""
        return None

    def attempts(
        self, work: RaceQuery, cap_bytes: int | None, place: AttemptFiles
    ) -> list[Attempt]:
        """Return its only way to run."""
        cap = cap_bytes or 4 << 30
        words = [word.replace("{target}", str(place.target)) for word in work.words]
        command = [sys.executable, "-P", "-m", "emsqrt.cli", *words, "--mem-cap", str(cap)]
        manifest = place.target.with_name("manifest.json")
        command += ["--quiet", "--spill-dir", str(place.spill), "--manifest", str(manifest)]
        settings = f"--mem-cap {format_bytes(cap)}"
        return [Attempt(settings, command, LEAN_ENVIRONMENT, manifest)]


class SqlPeer:
    """An engine from PyPI that runs SQL.

    Args:
        name: its display name.
        package: its distribution and module.
        base_bytes: its memory when idle; its own limit applies to the rest.
    """

    def __init__(self, name: str, package: str, base_bytes: int) -> None:
        self.name = name
        self._package = package
        self._base_bytes = base_bytes

    def version(self) -> str | None:
        """Return the installed distribution's version."""
        try:
            return metadata.version(self._package)
        except metadata.PackageNotFoundError:
            return None

    def why_not(self, work: RaceQuery) -> str | None:
        """Return None: it reads and writes CSV and Parquet."""
        return None

    def attempts(
        self, work: RaceQuery, cap_bytes: int | None, place: AttemptFiles
    ) -> list[Attempt]:
        """Return its limit at 75 % of the room with all threads, then 40 % with one, then 95 %."""
        threads = min(len(os.sched_getaffinity(0)), THREADS_MAX)
        if cap_bytes is None:
            return [self._attempt(work, None, threads, place)]
        room = cap_bytes - self._base_bytes
        limits = [
            (max(room * share // 100, _LIMIT_BYTES_MIN), each)
            for share, each in self._tries(threads)
        ]
        return [
            self._attempt(work, limit, each, place, cap_bytes)
            for limit, each in dict.fromkeys(limits)
        ]

    def _tries(self, threads: int) -> list[tuple[int, int]]:
        return [(75, threads), (40, 1), (95, 1)]

    def _attempt(
        self,
        work: RaceQuery,
        limit: int | None,
        threads: int,
        place: AttemptFiles,
        cap_bytes: int = 0,
    ) -> Attempt:
        request = {
            "engine": self._package,
            "sql": work.sql,
            "tables": {name: str(path) for name, path in work.tables.items()},
            "types": work.types,
            "target": str(place.target),
            "spill": str(place.spill),
            "threads": threads,
            "limit_bytes": limit,
            "batch_rows": _BATCH_ROWS if cap_bytes >= _LITTLE_BYTES else _BATCH_ROWS_LITTLE,
        }
        environment = {"MALLOC_ARENA_MAX": "2", "TMPDIR": str(place.spill)}
        said = f"threads {threads}"
        if limit is not None:
            said = f"{self._limit_name} {format_bytes(limit)}, {said}{self._also}"
        if self._package == "polars":
            environment |= self._polars_environment(limit, threads, place)
        return Attempt(said, [sys.executable, "-P", str(_PEER), json.dumps(request)], environment)

    @property
    def _limit_name(self) -> str:
        names = {"duckdb": "memory_limit", "datafusion": "fair spill pool"}
        return names.get(self._package, "out-of-core budget")

    @property
    def _also(self) -> str:
        if self._package != "duckdb":
            return ""
        return ", preserve_insertion_order false, CSV buffer_size 4 MB, row groups of 20480"

    @staticmethod
    def _polars_environment(limit: int | None, threads: int, place: AttemptFiles) -> dict[str, str]:
        found = {"POLARS_MAX_THREADS": str(threads), "POLARS_TEMP_DIR": str(place.spill)}
        found |= {"POLARS_OOC_SPILL_DIR": str(place.spill), "POLARS_WARN_UNSTABLE": "0"}
        if limit is not None:
            found["POLARS_OOC_MEMORY_BUDGET_MB"] = str(limit // 1_000_000)
            if threads == 1:
                found["POLARS_IDEAL_MORSEL_SIZE"] = "10000"
        return found


class GnuSort:
    """`sort` of the GNU coreutils, which works in any memory; only for text."""

    name = "GNU sort"

    def version(self) -> str | None:
        """Return the version that `sort --version` prints, None for another sort."""
        if shutil.which("sort") is None:
            return None
        printed = subprocess.run(["sort", "--version"], capture_output=True, text=True, check=False)
        first = printed.stdout.partition("\n")[0]
        return first.rpartition(" ")[2] if "GNU" in first else None

    def why_not(self, work: RaceQuery) -> str | None:
        """Return why the rows cannot be sorted as lines of text."""
        if not work.is_sort:
            return "it only sorts"
        return None if work.suffix == ".csv" else "it only sorts text"

    def attempts(
        self, work: RaceQuery, cap_bytes: int | None, place: AttemptFiles
    ) -> list[Attempt]:
        """Return a buffer of 85 % of the cap with all threads; the header bypasses the sort."""
        threads = min(len(os.sched_getaffinity(0)), THREADS_MAX)
        buffer_bytes = 4 << 30 if cap_bytes is None else cap_bytes * 85 // 100
        options = [f"-S{buffer_bytes >> 10}K", f"--parallel={threads}", "-s", "-t,"]
        names = work.schema.names
        for name, descending in work.keys:
            at = names.index(name) + 1
            options.append(f"-k{at},{at}{_letters(str(work.schema.field(name).type), descending)}")
        sort = shlex.join(["sort", *options, "-T", str(place.spill)])
        source, target = shlex.quote(str(work.source)), shlex.quote(str(place.target))
        script = f"{{ head -n 1 {source}; tail -n +2 {source} | {sort}; }} > {target}"
        environment = {"LC_ALL": "C", "TMPDIR": str(place.spill)}
        settings = f"LC_ALL=C {' '.join(options)}"
        kinds = (str(work.schema.field(name).type) for name, _ in work.keys)
        if any(kind.startswith(_NUMBERS) for kind in kinds):
            settings += _EMPTY_NUMBERS
        return [Attempt(settings, ["sh", "-c", script], environment)]


_NUMBERS = ("Int", "UInt", "Decimal", "Float")
_EMPTY_NUMBERS = "; an empty number is 0 (-n) or first (-g) here, the other engines sort NULL last"


def _letters(kind: str, descending: bool) -> str:
    number = "n" if kind.startswith(("Int", "UInt", "Decimal")) else ""
    return ("g" if kind.startswith("Float") else number) + ("r" if descending else "")


CONTENDERS: tuple[Contender, ...] = (
    Ours(),
    SqlPeer("DuckDB", "duckdb", 25 * MIB),
    SqlPeer("Polars", "polars", 60 * MIB),
    SqlPeer("DataFusion", "datafusion", 85 * MIB),
    GnuSort(),
)
"""Base figures: RssAnon of the connected, idle engine, measured."""
