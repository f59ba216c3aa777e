"""Data of the caller as sources of plans: files, and values in memory, which become files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from elytra.local.python_steps import Rows, declared_schema
from emsqrt.pipeline import scan
from emsqrt.plan import Files, Scan
from emsqrt.planner import find_schema
from sennit_core.errors import NotFound, Unsupported, UsageError
from sennit_core.schema import Field, Schema
from sennit_core.text import nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.tracing.function import Shape

Paths: TypeAlias = "str | os.PathLike[str]"
Declared: TypeAlias = "Mapping[str, str] | Schema | str"

_PIECE_ROWS = 65_536
_WHAT = "a path, Arrow data, a DataFrame, a dict of columns, or rows"


def source_of(
    data: Any, target: Path, schema: Declared | None, options: Mapping[str, Any]
) -> tuple[Scan, Shape]:
    """Return a scan of the data, and the form in which functions receive its rows.

    Args:
        data: As of `LocalElytra.dataset`.
        target: The file to which values in memory are written.
        schema: The columns; found in the data when None.
        options: For the reader of files.

    Raises:
        NotFound: There is no such file.
        UsageError: The data is none of these.
        Unsupported: A column has a type that plans do not have.
    """
    paths = _paths(data)
    if paths is not None:
        columns = None if schema is None else declared_schema(schema)[0]
        rows = scan(*map(str, paths), schema=columns, **options).plan
        found = find_schema(rows, Path.cwd())
        assert isinstance(found, Scan)
        return found, "row"
    if options:
        raise UsageError(
            f"{next(iter(options))} is an option of files, and {type(data).__name__} is none"
        )
    batches, columns, shape = _in_memory(data, schema)
    _write(target, columns, batches)
    return Scan(Files((str(target),), "arrow"), columns), shape


def _paths(data: Any) -> list[Path] | None:
    """Return the files that the data names, in order; None if it names none."""
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if path.exists():
            return [path.absolute()]
        if glob.has_magic(str(path)):
            found = sorted(glob.glob(str(path)))  # noqa: PTH207 - a pattern may begin anywhere
            if not found:
                raise NotFound("file", str(path), hint="no file matches the pattern")
            return [Path(each).absolute() for each in found]
        raise NotFound("file", str(path), _similar(path.absolute()))
    if isinstance(data, list | tuple) and data and all(isinstance(e, os.PathLike) for e in data):
        return list(chain.from_iterable(_paths(each) or () for each in data))
    return None


def _similar(missing: Path) -> str | None:
    """Return the most similar name in the folder of a file that does not exist."""
    if not missing.parent.is_dir():
        return None
    return nearest(missing.name, [each.name for each in islice(missing.parent.iterdir(), 1000)])


def _in_memory(
    data: Any, declared: Declared | None
) -> tuple[Iterator[pa.RecordBatch], Schema, Shape]:
    import pyarrow as pa

    if isinstance(data, Mapping):
        data = pa.table({str(name): values for name, values in data.items()})
    elif type(data).__module__.partition(".")[0] == "pandas":
        data = pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        data = data.to_reader(max_chunksize=_PIECE_ROWS)
    elif hasattr(data, "__arrow_c_stream__"):  # polars, DuckDB, readers of other libraries
        data = pa.RecordBatchReader.from_stream(data)
    if isinstance(data, pa.RecordBatchReader):
        columns = _columns(data.schema) if declared is None else declared_schema(declared)[0]
        return _cast(data, columns), columns, "row"
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise UsageError(f"{type(data).__name__} is no dataset", hint=f"pass {_WHAT}")
    return _of_rows(iter(data), declared)


def _columns(schema: pa.Schema) -> Schema:
    """Return the columns of Arrow data; an error names the column whose type plans do not have."""
    import pyarrow as pa

    fields: list[Field] = []
    for column in schema:
        try:
            fields += Schema.from_arrow(pa.schema([column])).fields
        except Unsupported as problem:
            raise Unsupported(
                f"column {column.name!r}: {problem}", hint=f'schema={{"{column.name}": "Utf8", …}}'
            ) from problem
    return Schema(tuple(fields))


def _cast(batches: Iterable[pa.RecordBatch], columns: Schema) -> Iterator[pa.RecordBatch]:
    """Give batches the types that plans have: text of 32-bit offsets, no dictionaries."""
    import pyarrow as pa

    wanted = columns.to_arrow()
    for batch in batches:
        table = pa.Table.from_batches([batch])
        missing = [name for name in columns.names if name not in table.column_names]
        if missing:
            raise UsageError(f"the data has no column {missing[0]!r}")
        try:
            yield from table.select(list(columns.names)).cast(wanted).to_batches()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
            raise UsageError(
                f"the data does not have the types of the columns: {problem}"
            ) from None


def _of_rows(
    rows: Iterator[Any], declared: Declared | None
) -> tuple[Iterator[pa.RecordBatch], Schema, Shape]:
    first = list(islice(rows, _PIECE_ROWS))
    form: Shape = "row"  # of the rows that are passed; declared names turn tuples into rows
    if declared is not None:
        columns, shape = declared_schema(declared)
        form = "tuple" if first and isinstance(first[0], tuple) else shape
    elif first:
        columns, shape = Rows(_with_all_keys(first)).infer("dataset")
        form = shape
    else:
        raise UsageError("a dataset without rows has no columns", hint='schema={"name": "Utf8"}')

    def batches() -> Iterator[pa.RecordBatch]:
        piece, at = first, 0
        while piece:
            complete = [_complete(row, columns) for row in piece]
            yield Rows(complete).typed(columns, form, "dataset", at)
            at += len(piece)
            piece = list(islice(rows, _PIECE_ROWS))

    return batches(), columns, shape


def _with_all_keys(rows: list[Any]) -> list[Any]:
    """Give dicts the keys of all of them: a missing one is None."""
    if not isinstance(rows[0], Mapping):
        return rows
    names = dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row)
    return [
        {name: row.get(name) for name in names} if isinstance(row, Mapping) else row for row in rows
    ]


def _complete(row: Any, columns: Schema) -> Any:
    if not isinstance(row, Mapping) or row.keys() == set(columns.names):
        return row
    return {**dict.fromkeys(columns.names), **row}


def _write(target: Path, columns: Schema, batches: Iterable[pa.RecordBatch]) -> None:
    import pyarrow as pa

    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_file(file, columns.to_arrow()) as writer:
        for batch in batches:
            writer.write_batch(batch)
