"""Add the columns of folder names to the columns of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emsqrt.io.casting import as_type
from emsqrt.io.locations import Location
from emsqrt.io.partitions import values_in
from emsqrt.io.pruning import ColumnFacts, Condition, may_match
from emsqrt.memory import BudgetGuard
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.io.scan import FileScan


class PartitionValues:
    """The column values in the folder names of one file.

    Args:
        place: the file.
        wanted: the plan's columns.
        by_folder: the columns that are in folder names.

    Raises:
        BadInput: a folder's value is not of its column's type.
    """

    def __init__(self, place: Location, wanted: Schema, by_folder: frozenset[str]) -> None:
        texts = values_in(place) if by_folder else {}
        self._schema = wanted.to_arrow()
        self._in_file = Schema(tuple(field for field in wanted if field.name not in by_folder))
        self._values: dict[str, Any] = {}
        for field in self._schema:
            if field.name not in by_folder:
                continue
            text = texts[field.name]
            try:
                self._values[field.name] = as_type(pa.array([text], pa.string()), field.type)[0]
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise BadInput(
                    str(place),
                    reason=f"the folder {field.name}={text} is not {field.type}",
                    hint="set another type for the column in the schema",
                ) from error

    def may_match(self, conditions: Sequence[Condition]) -> bool:
        """Return whether the file may have a row that satisfies every condition."""
        facts = {}
        for name, scalar in self._values.items():
            value = scalar.as_py()
            facts[name] = ColumnFacts(value, value, int(value is None), 1)
        return may_match(conditions, facts)

    def around(self, open_file: Callable[[Schema], FileScan]) -> FileScan:
        """Open the file, and add the values to its columns."""
        scan = open_file(self._in_file)
        return _WithValues(scan, self._schema, self._values) if self._values else scan


class _WithValues:
    """A file's batches with added constant columns."""

    def __init__(self, scan: FileScan, schema: Any, values: dict[str, Any]) -> None:
        self._scan, self._schema, self._values = scan, schema, values
        self.need_bytes = scan.need_bytes
        self.need_because = scan.need_because
        self.known_bytes = int(getattr(scan, "known_bytes", 0))
        self.known_because = str(getattr(scan, "known_because", ""))

    @property
    def bytes_done(self) -> int:
        return self._scan.bytes_done

    @bytes_done.setter
    def bytes_done(self, value: int) -> None:
        self._scan.bytes_done = value

    @property
    def bytes_skipped(self) -> int:
        return int(getattr(self._scan, "bytes_skipped", 0))

    def start_at(self, row: int) -> int:
        start_at = getattr(self._scan, "start_at", None)
        return 0 if start_at is None else int(start_at(row))

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        for batch in self._scan.batches(guard):
            columns = [
                pa.repeat(self._values[name], batch.num_rows)
                if name in self._values
                else batch.column(name)
                for name in self._schema.names
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self._schema)
