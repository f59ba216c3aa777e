"""Python functions over record batches: what `opaque=True` and `map_batches` run.

They run in the process of the caller, row by row, on data; they are never sent anywhere. Their
memory is not under the cap of EM-√, which bounds the steps before and after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from elytra.errors import StepFailed
from sennit_core.errors import SennitError, Unsupported, UsageError
from sennit_core.optional import import_optional
from sennit_core.schema import DataType, Field, Schema

if TYPE_CHECKING:
    import pyarrow as pa

    from elytra.tracing.function import Shape

Verb: TypeAlias = Literal["map", "filter", "flat_map", "map_batches", "reduce"]
BatchForm: TypeAlias = Literal["arrow", "pandas", "polars"]

SAMPLE_ROWS = 100
"""Rows with which a function is called to find the columns of its result."""
BATCH_ROWS = 8192
"""Rows that are Python objects at the same time: some MB for rows of usual width."""
NO_INITIAL: Any = object()


class Row(dict[str, Any]):
    """A row as a dict; columns are also attributes, as in traced functions."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}") from None


@dataclass(frozen=True, slots=True)
class PythonStep:
    """One function and how it is applied.

    Args:
        verb: The verb of the pipeline.
        function: Called with a row, with an accumulator and a row, or with a batch.
        shape: The form in which it receives a row.
        label: Names the step in errors and in `explain`.
        batch_rows: Rows that it receives at once; for "map_batches".
        form: The form of a batch; for "map_batches".
        initial: The first value of the accumulator; for "reduce".
    """

    verb: Verb
    function: Callable[..., Any]
    shape: Shape
    label: str
    batch_rows: int = BATCH_ROWS
    form: BatchForm = "arrow"
    initial: Any = NO_INITIAL

    def outputs(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Output]:
        """Yield what the function returns, in pieces of at most `BATCH_ROWS` rows where it has rows.

        Raises:
            StepFailed: The function raised, or returned something that is no row.
        """
        if self.verb == "map_batches":
            return self._of_batches(batches)
        if self.verb == "reduce":
            return iter((self._reduced(batches),))
        rows = rows_of(batches, self.shape)
        return self._of_rows(rows)

    def _of_rows(self, rows: Iterator[Any]) -> Iterator[Output]:
        apply = {"map": self._mapped, "filter": self._kept, "flat_map": self._items}[self.verb]
        pending = iter(apply(rows))
        while piece := list(islice(pending, BATCH_ROWS)):
            yield Rows(piece)

    def _mapped(self, rows: Iterator[Any]) -> Iterator[Any]:
        for at, row in enumerate(rows):
            yield self._call(at, row)

    def _kept(self, rows: Iterator[Any]) -> Iterator[Any]:
        return (row for at, row in enumerate(rows) if self._call(at, row))

    def _items(self, rows: Iterator[Any]) -> Iterator[Any]:
        for at, row in enumerate(rows):
            found = self._call(at, row)
            if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
                raise StepFailed(
                    self.label,
                    f"the function returned {type(found).__name__}, not several rows",
                    row=at,
                    hint="return a list, or yield each row",
                )
            try:
                yield from found
            except SennitError:
                raise
            except Exception as problem:  # a generator function fails here
                raise self._failed(problem, at) from problem

    def _reduced(self, batches: Iterable[pa.RecordBatch]) -> Output:
        rows = rows_of(batches, self.shape)
        start = 0
        total = self.initial
        if total is NO_INITIAL:
            total, start = next(rows, None), 1
        for at, row in enumerate(rows, start):
            total = self._call(at, total, row)
        return Rows([total])

    def _of_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Output]:
        at = 0
        for batch in _exact(batches, self.batch_rows):
            yield Columns(_table(self._call(at, _in_form(batch, self.form)), self.label))
            at += batch.num_rows

    def _call(self, at: int, *arguments: Any) -> Any:
        try:
            return self.function(*arguments)
        except SennitError:
            raise
        except Exception as problem:
            raise self._failed(problem, at) from problem

    def _failed(self, problem: Exception, at: int) -> StepFailed:
        return StepFailed(self.label, f"{type(problem).__name__}: {problem}", row=at)


@dataclass(frozen=True, slots=True)
class Rows:
    """Values that functions returned: dicts, tuples or single values."""

    values: Sequence[Any]

    def typed(self, schema: Schema, shape: Shape, label: str, first_row: int) -> pa.RecordBatch:
        """Return the rows as a batch; StepFailed names the row and the column that do not fit."""
        import pyarrow as pa

        columns = _columns(self.values, schema.names, shape, label, first_row)
        arrays = [
            _array(column, field, label, first_row)
            for column, field in zip(columns, schema.fields, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())

    def infer(self, label: str) -> tuple[Schema, Shape]:
        """Return the columns and the form of the rows, from their first values.

        Raises:
            UsageError: There is no row, or a column has no value that is not None.
        """
        if not self.values:
            raise UsageError(
                f"{label}: the columns of its result are unknown, as it returned no row",
                hint='pass them: schema={"name": "Utf8"}, or schema="Int64" for one value',
            )
        first = self.values[0]
        shape: Shape = (
            "row"
            if isinstance(first, Mapping)
            else "tuple"
            if isinstance(first, tuple)
            else "value"
        )
        names = ["value"]
        if shape == "row":
            names = [str(name) for name in first]
        elif shape == "tuple":
            names = [f"_{at}" for at in range(len(first))]
        columns = _columns(self.values, names, shape, label, 0)
        return Schema(tuple(map(partial(_field, label), names, columns))), shape


@dataclass(frozen=True, slots=True)
class Columns:
    """A table that a function over batches returned."""

    table: pa.Table

    def typed(self, schema: Schema, shape: Shape, label: str, first_row: int) -> pa.RecordBatch:
        """Return the rows as a batch; StepFailed names the column that does not fit."""
        del shape
        import pyarrow as pa

        missing = [name for name in schema.names if name not in self.table.column_names]
        extra = [name for name in self.table.column_names if name not in schema.names]
        if missing or extra:
            found = ", ".join(self.table.column_names)
            expected = ", ".join(schema.names)
            raise StepFailed(
                label, f"it returned the columns {found}, not {expected}", row=first_row
            )
        arrays = []
        for field in schema.fields:
            kind = field.type.to_arrow()
            try:
                chunks = self.table.column(field.name).cast(kind).chunks
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
                reason = f"{problem} (the column is {field.type})"
                raise StepFailed(label, reason, row=first_row, column=field.name) from problem
            arrays.append(pa.concat_arrays(chunks) if chunks else pa.array([], kind))
        return pa.RecordBatch.from_arrays(arrays, schema=schema.to_arrow())

    def infer(self, label: str) -> tuple[Schema, Shape]:
        """Return the columns of the table."""
        found = self.table.schema
        fields = []
        for column in found:
            try:
                fields.append(Field(column.name, DataType.from_arrow(column.type)))
            except Unsupported as problem:
                raise StepFailed(
                    label,
                    str(problem),
                    column=column.name,
                    hint='pass the columns: schema={"name": "Utf8"}',
                ) from problem
        return Schema(tuple(fields)), "row"


Output: TypeAlias = Rows | Columns


def rows_of(batches: Iterable[pa.RecordBatch], shape: Shape) -> Iterator[Any]:
    """Yield rows as functions receive them: dicts, tuples or single values."""
    for batch in _cut(batches, BATCH_ROWS):
        if shape == "row":
            yield from map(Row, batch.to_pylist())
        elif shape == "value":
            yield from batch.column(0).to_pylist()
        else:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def declared_schema(declared: Mapping[str, str] | Schema | str) -> tuple[Schema, Shape]:
    """Return the columns and the form of rows that a caller declares.

    Args:
        declared: Types by name, a schema, or the type of a single value.
    """
    if isinstance(declared, Schema):
        return declared, "row"
    if isinstance(declared, str):
        return Schema((Field("value", DataType.parse(declared)),)), "value"
    fields = (Field(name, DataType.parse(kind)) for name, kind in declared.items())
    shape: Shape = "tuple" if list(declared) == [f"_{at}" for at in range(len(declared))] else "row"
    return Schema(tuple(fields)), shape


def _cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for begin in range(0, batch.num_rows, rows):
            yield batch.slice(begin, rows)


def _exact(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of so many rows; the last may have fewer.

    So what a function over batches returns does not depend on how its input was read.
    """
    import pyarrow as pa

    pending: list[pa.RecordBatch] = []
    count = 0
    for batch in _cut(batches, rows):
        pending.append(batch)
        count += batch.num_rows
        if count < rows:
            continue
        joined = pending[0] if len(pending) == 1 else pa.concat_batches(pending)
        yield joined.slice(0, rows)
        rest = joined.slice(rows)  # of the last batch, so it is shorter than `rows`
        pending, count = ([rest], rest.num_rows) if rest.num_rows else ([], 0)
    if count:
        yield pa.concat_batches(pending)


def _columns(
    values: Sequence[Any], names: Sequence[str], shape: Shape, label: str, first_row: int
) -> list[list[Any]]:
    """Return the values of each column, and refuse rows of another form than the first."""
    if shape == "value":
        return [list(values)]
    kind, expected = (Mapping, set(names)) if shape == "row" else (tuple, len(names))
    for at, row in enumerate(values, first_row):
        found: Any = None
        if isinstance(row, kind):
            found = set(row) if shape == "row" else len(row)
        if found != expected:
            wanted = f"a dict of {', '.join(names)}" if shape == "row" else f"{len(names)} values"
            raise StepFailed(label, f"its result is not {wanted}: {row!r:.100}", row=at)
    if shape == "row":
        return [[row[name] for row in values] for name in names]
    return [list(column) for column in zip(*values, strict=True)] or [[] for _ in names]


def _field(label: str, name: str, values: list[Any]) -> Field:
    import pyarrow as pa

    try:
        return Field(name, DataType.from_arrow(pa.array(values).type))
    except (pa.ArrowInvalid, pa.ArrowTypeError, Unsupported) as problem:
        raise StepFailed(
            label,
            f"its values have no type: {problem}",
            column=name,
            hint='pass the columns: schema={"name": "Utf8"}',
        ) from problem


def _array(values: list[Any], field: Field, label: str, first_row: int) -> pa.Array:
    import pyarrow as pa

    kind = field.type.to_arrow()
    errors = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError, ValueError)
    try:
        return pa.array(values, kind)
    except errors as problem:
        for at, value in enumerate(values):  # the message of Arrow does not name the row
            try:
                pa.array([value], kind)
            except errors:
                raise StepFailed(
                    label,
                    f"{value!r:.100} is not {field.type}",
                    row=first_row + at,
                    column=field.name,
                    hint=f'pass schema={{"{field.name}": …}} with a type that holds all values',
                ) from problem
        raise


def _in_form(batch: pa.RecordBatch, form: BatchForm) -> Any:
    match form:
        case "pandas":
            import_optional("pandas", 'map_batches(..., form="pandas")')
            return batch.to_pandas()
        case "polars":
            return import_optional("polars", 'map_batches(..., form="polars")').from_arrow(batch)
    return batch


def _table(returned: Any, label: str) -> pa.Table:
    import pyarrow as pa

    try:
        if isinstance(returned, pa.Table):
            return returned
        if isinstance(returned, pa.RecordBatch):
            return pa.Table.from_batches([returned])
        if isinstance(returned, Mapping):
            return pa.table(dict(returned))
        if type(returned).__module__.partition(".")[0] == "pandas":
            return pa.Table.from_pandas(returned, preserve_index=False)
        if hasattr(returned, "__arrow_c_stream__"):
            return pa.table(returned)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as problem:
        raise StepFailed(label, f"its result is no table: {problem}") from problem
    raise StepFailed(
        label,
        f"its result is {type(returned).__name__}, not a table",
        hint="return an Arrow table or batch, a DataFrame, or a dict of columns",
    )
