"""Read a plan's source as batches: the files of one format, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from emsqrt.expr import Expr
from emsqrt.io.arrow_scan import ArrowScan
from emsqrt.io.bad_rows import BadRows
from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.csv_scan import CsvScan
from emsqrt.io.inputs import opened_locations
from emsqrt.io.jsonl_scan import JsonlOptions, JsonlScan
from emsqrt.io.parquet_coded import Dictionary, joined
from emsqrt.io.parquet_facts import Span, joined_spans
from emsqrt.io.parquet_scan import ParquetScan
from emsqrt.io.partition_scan import PartitionValues
from emsqrt.io.pruning import Condition, conditions_of
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from emsqrt.plan import DatasetRef, Files
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.spill import SpillManager


class FileScan(Protocol):
    """The reader of one file: its memory need, its batches and its progress."""

    need_bytes: int
    need_because: str
    bytes_done: int

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` holds at least `need_bytes`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The settings for reading every file of a source.

    Args:
        format: the format of all files.
        options: JSON values for the reader, without `partitions`.
        schema: the columns to read of each file.
        budget: the memory budget.
        conditions: conditions that every row of the result satisfies.
        bad_rows: receives records that violate the schema.
        spill: opens the spill for columns that do not fit memory together; None refuses them.
    """

    format: str
    options: dict[str, Any]
    schema: Schema
    budget: MemoryBudget
    conditions: tuple[Condition, ...]
    bad_rows: BadRows
    spill: Callable[[], SpillManager] | None


class SourceScan:
    """All files of a source, read in order; made by `open_scan`, which reserves their memory.

    A context manager; leaving it releases the memory and makes a reject file appear.
    """

    def __init__(
        self,
        scans: Sequence[FileScan],
        sizes: Sequence[int],
        guard: BudgetGuard,
        bad_rows: BadRows,
    ) -> None:
        self._scans = scans
        self._sizes = sizes
        self._guard = guard
        self._bad_rows = bad_rows
        self.bytes_total = sum(sizes)
        self._files_done = 0
        self._are_together = False  # whether the files are read at the same time, by `files`
        self._begin = 0, 0
        self.position = 0, 0
        """(file, rows of the file before the batch) of the last batch returned."""

    @property
    def known_bytes(self) -> int:
        """Memory of all files' row group metadata, which is kept until the run ends."""
        return sum(getattr(scan, "known_bytes", 0) for scan in self._scans)

    @property
    def known_because(self) -> str:
        """The reason of most of that memory, for errors."""
        top = max(self._scans, key=lambda scan: getattr(scan, "known_bytes", 0), default=None)
        return str(getattr(top, "known_because", ""))

    @property
    def sure_row_bytes(self) -> int:
        """Some row has at least half of these bytes, as far as the files' metadata shows."""
        return max((getattr(scan, "sure_row_bytes", 0) for scan in self._scans), default=0)

    @property
    def record_copies(self) -> int:
        """Copies in memory of a record longer than a block; 0 for formats without such blocks."""
        return max((getattr(scan, "record_copies", 0) for scan in self._scans), default=0)

    def codable(self) -> dict[str, Dictionary]:
        """Return the text columns that are fully dictionary-encoded in every file.

        Each has the most texts, and bytes, of all its dictionaries together.
        """
        return joined(
            [scan.codable() if isinstance(scan, ParquetScan) else {} for scan in self._scans]
        )

    def keep_coded(self, names: Collection[str]) -> None:
        """Return these columns, which must be codable, as dictionary arrays in batches."""
        for scan in self._scans:
            assert isinstance(scan, ParquetScan), "no other is codable"
            scan.keep_coded(names)

    def spans(self) -> dict[str, Span]:
        """Return the least and largest stored integers of columns with statistics in all files."""
        return joined_spans(
            [scan.spans() if isinstance(scan, ParquetScan) else {} for scan in self._scans]
        )

    def start_at(self, file: int, rows: int) -> None:
        """Begin after the first `rows` rows of a file; skip blocks before that if possible."""
        self._begin = file, rows

    @property
    def file_names(self) -> Sequence[str]:
        """The files in order, if all are Arrow files, which can be read at the same time."""
        names = [scan.name for scan in self._scans if isinstance(scan, ArrowScan)]
        return names if len(names) == len(self._scans) else ()

    @property
    def file_bytes(self) -> int:
        """Memory to read the file that needs most; the reservation of the scan is for one of them."""
        return max((scan.need_bytes for scan in self._scans), default=0)

    def files(self) -> list[Generator[Any]]:
        """Return the batches of each file, to be read at the same time; the caller reserves memory."""
        self._are_together = True
        return [self._rows_of(scan) for scan in self._scans]

    def _rows_of(self, scan: FileScan) -> Generator[Any]:
        yield from scan.batches(self._guard)

    @property
    def bytes_skipped(self) -> int:
        """The part of `bytes_done` that was skipped."""
        first, _ = self._begin
        inside = sum(getattr(scan, "bytes_skipped", 0) for scan in self._scans)
        return sum(self._sizes[:first]) + int(inside)

    @property
    def bytes_done(self) -> int:
        """Bytes of the files that have been read."""
        if self._are_together:
            return sum(scan.bytes_done for scan in self._scans)
        done = sum(self._sizes[: self._files_done])
        if self._files_done < len(self._scans):
            done += self._scans[self._files_done].bytes_done
        return done

    @property
    def nulled_values(self) -> int:
        """Values that did not fit their type and became NULL."""
        return self._bad_rows.nulled_values

    @property
    def rejected_rows(self) -> int:
        """Records that were rejected."""
        return self._bad_rows.rejected_rows

    def __iter__(self) -> Generator[Any]:
        first, skipped = self._begin
        self._files_done = first
        for file, scan in enumerate(self._scans[first:], first):
            for row, batch in _rows_from(scan, skipped, self._guard):
                self.position = file, row
                yield batch
                del batch
            skipped = 0
            self._files_done += 1

    def __enter__(self) -> Self:
        self._bad_rows.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._guard:
            self._bad_rows.__exit__(kind, error, trace)


def _rows_from(scan: FileScan, start: int, guard: BudgetGuard) -> Iterator[tuple[int, Any]]:
    """Yield a file's batches from row `start` on, each with the number of its first row."""
    start_at = getattr(scan, "start_at", None)
    row = start_at(start) if start and start_at is not None else 0
    for batch in scan.batches(guard):
        skipped = min(max(start - row, 0), batch.num_rows)
        if skipped < batch.num_rows:
            yield row + skipped, batch.slice(skipped) if skipped else batch
        row += batch.num_rows
        del batch


def open_scan(  # noqa: PLR0913 - a scan's node and its world
    source: Files | DatasetRef,
    schema: Schema,
    budget: MemoryBudget,
    columns: Sequence[str] | None = None,
    folder: Path | None = None,
    *,
    predicate: Expr | None = None,
    spill: Callable[[], SpillManager] | None = None,
) -> SourceScan:
    """Open the files of a source, and check everything that can be checked before reading.

    Args:
        source: files; a dataset must have been resolved to files before.
        schema: the source's columns with their types.
        budget: the budget in which memory is reserved before it is used.
        columns: the columns to read, in order; all when None.
        folder: the folder of relative paths; the working directory when None.
        predicate: the caller drops rows for which it is not true, so blocks without other rows may
            be skipped; only its simple conditions are used.
        spill: opens the spill of this run for columns of a large Parquet row group, if the budget
            does not hold all columns at once; None refuses such files.

    Raises:
        CapTooSmall: the largest blocks or pages of a file do not fit the budget.
        NotFound, BadInput, UnknownColumn, Unsupported: a file is missing or cannot be read.
    """
    wanted = schema if columns is None else schema.select(columns)
    places, options, by_folder = opened_locations(source, folder)
    assert isinstance(source, Files), "only files have paths"
    bad_rows = BadRows(options.get("rejectFile"), folder)
    in_files = Schema(tuple(field for field in wanted if field.name not in by_folder))
    reading = Reading(
        source.format, options, in_files, budget, conditions_of(predicate), bad_rows, spill
    )
    scans, sizes, known_bytes = [], [], 0
    for place in places:
        values = PartitionValues(place, wanted, by_folder)
        if values.may_match(reading.conditions):
            file = open_source(place)
            scans.append(values.around(partial(_open_file, file, reading)))
            sizes.append(file.stored_bytes or 0)
            known_bytes += getattr(scans[-1], "known_bytes", 0)
            if known_bytes > budget.free_bytes:  # the files so far need too much already
                budget.admit(known_bytes, "row groups", getattr(scans[-1], "known_because", ""))
    hungriest = max(scans, key=lambda scan: scan.need_bytes, default=None)
    guard = (
        budget.acquire(0, "scan")
        if hungriest is None
        else budget.admit(hungriest.need_bytes, "scan", hungriest.need_because)
    )
    return SourceScan(scans, sizes, guard, bad_rows)


def _open_file(source: ByteSource, reading: Reading, schema: Schema) -> FileScan:
    if source.codec and reading.format in ("parquet", "arrow"):
        raise BadInput(
            source.name,
            reason=f"{reading.format} inside {source.codec} cannot be read in parts",
            hint="decompress the file first; the columns in it are compressed already",
        )
    match reading.format:
        case "csv":
            csv = CsvOptions.from_json(reading.options)
            return CsvScan(source, schema, csv, reading.budget, bad_rows=reading.bad_rows)
        case "jsonl":
            jsonl = JsonlOptions.from_json(reading.options)
            return JsonlScan(source, schema, jsonl, reading.budget, reading.bad_rows)
        case "parquet":
            return ParquetScan(
                source, schema, reading.budget, conditions=reading.conditions, spill=reading.spill
            )
        case _:
            return ArrowScan(source, schema, reading.budget)
