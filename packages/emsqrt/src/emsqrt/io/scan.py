"""From a plan's source to batches: the files of one format, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from emsqrt.io.arrow_scan import ArrowScan, infer_arrow_schema
from emsqrt.io.csv_options import CsvOptions
from emsqrt.io.csv_scan import CsvScan, infer_csv_schema
from emsqrt.io.parquet_scan import ParquetScan, infer_parquet_schema
from emsqrt.memory import BudgetGuard, MemoryBudget
from emsqrt.plan import DatasetRef, Files
from sennit_core.errors import NotFound, Unsupported, UsageError
from sennit_core.schema import Schema


class FileScan(Protocol):
    """One file to read: says what memory that takes, gives batches, knows how far it is."""

    need_bytes: int
    need_because: str
    bytes_done: int

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` holds at least `need_bytes`."""


class SourceScan:
    """All files of a source, read in their order; made by `open_scan`, which reserved for them.

    A context manager; leaving it gives the memory back.
    """

    def __init__(self, scans: Sequence[FileScan], sizes: Sequence[int], guard: BudgetGuard) -> None:
        self._scans = scans
        self._sizes = sizes
        self._guard = guard
        self.bytes_total = sum(sizes)
        self._files_done = 0

    @property
    def bytes_done(self) -> int:
        """Bytes of the files that have been read."""
        done = sum(self._sizes[: self._files_done])
        if self._files_done < len(self._scans):
            done += self._scans[self._files_done].bytes_done
        return done

    def __iter__(self) -> Generator[Any]:
        for scan in self._scans:
            yield from scan.batches(self._guard)
            self._files_done += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.release()


def open_scan(
    source: Files | DatasetRef,
    schema: Schema,
    budget: MemoryBudget,
    columns: Sequence[str] | None = None,
    folder: Path | None = None,
) -> SourceScan:
    """Return the batches of a source; everything that can be refused is refused here.

    Args:
        source: files; a dataset must have been resolved to files before.
        schema: the source's columns with their types.
        budget: memory is asked of it before it is taken.
        columns: the columns to read, in order; all when None.
        folder: where relative paths start; the current folder when None.

    Raises:
        CapTooSmall: the hungriest file's blocks or pages do not fit the budget.
        NotFound, BadInput, UnknownColumn, Unsupported: as the files are.
    """
    wanted = schema if columns is None else schema.select(columns)
    paths = source_paths(source, folder)
    assert isinstance(source, Files), "paths are files'"
    scans = [_open_file(path, source, wanted, budget) for path in paths]
    hungriest = max(scans, key=lambda scan: scan.need_bytes, default=None)
    guard = (
        budget.acquire(0, "scan")
        if hungriest is None
        else budget.admit(hungriest.need_bytes, "scan", hungriest.need_because)
    )
    return SourceScan(scans, [path.stat().st_size for path in paths], guard)


def infer_schema(source: Files | DatasetRef, folder: Path | None = None) -> Schema:
    """Return the columns of a source, as its first file has them."""
    paths = source_paths(source, folder)
    assert isinstance(source, Files), "paths are files'"
    if not paths:
        raise UsageError("a source without files needs a schema of its own")
    match source.format:
        case "csv":
            return infer_csv_schema(paths[0], CsvOptions.from_json(source.options))
        case "parquet":
            return infer_parquet_schema(paths[0])
        case _:
            return infer_arrow_schema(paths[0])


def source_paths(source: Files | DatasetRef, folder: Path | None = None) -> list[Path]:
    """Return the files of a source, checked to be there."""
    if isinstance(source, DatasetRef):
        raise Unsupported(
            f"the dataset {source.dataset!r} is not resolved to files",
            hint="an engine reads files; a node resolves its datasets before it runs a plan",
        )
    paths = [(folder or Path()) / path for path in source.paths]
    for path in paths:
        if not path.is_file():
            raise NotFound("file", str(path))
    return paths


def _open_file(path: Path, source: Files, schema: Schema, budget: MemoryBudget) -> FileScan:
    openers: dict[str, Callable[[], FileScan]] = {
        "csv": lambda: CsvScan(path, schema, CsvOptions.from_json(source.options), budget),
        "parquet": lambda: ParquetScan(path, schema, budget),
        "arrow": lambda: ArrowScan(path, schema, budget),
    }
    return openers[source.format]()
