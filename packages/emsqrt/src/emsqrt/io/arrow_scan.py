"""Arrow IPC files and streams, one record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.io.arrow_blocks import largest_batch
from emsqrt.io.casting import BatchCaster
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput, CapTooSmall, MemoryCapExceeded
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from sennit_core.arrow_ipc import ArrowReader

_COPIES = 2
"""Copies of a batch in memory: as it is read, and after casts."""


class ArrowScan:
    """Reads one Arrow IPC file or stream; `bytes_done` is updated during iteration.

    Args:
        source: the file; its first bytes show whether it is a file or a stream.
        schema: the columns to read, in order, with their types.
        budget: reserve `need_bytes` of it before reading.
    """

    def __init__(self, source: ByteSource | Path, schema: Schema, budget: MemoryBudget) -> None:
        del budget  # the size of batches cannot be chosen
        self._source = open_source(source) if isinstance(source, Path) else source
        self.name = self._source.name
        batch_bytes, number = largest_batch(self._source)
        self.need_bytes = _COPIES * batch_bytes
        self.need_because = (
            f"record batch {number} of {self._source.name} needs {format_bytes(batch_bytes)}"
        )
        self.bytes_done = 0
        with _open(self._source) as (_, reader):
            self._caster = BatchCaster(reader.schema, schema, self._source.name)

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` grows with them."""
        from sennit_core.arrow_ipc import DAMAGE

        most = self.need_bytes // _COPIES
        with _open(self._source, most) as (file, reader):
            try:
                for batch in reader:
                    self._hold(batch, guard)
                    self.bytes_done = file.tell()
                    yield self._caster.cast(batch)
            except DAMAGE as error:
                raise BadInput(self._source.name, reason=str(error)) from error

    def _hold(self, batch: Any, guard: BudgetGuard) -> None:
        """Reserve memory for a batch larger than its metadata says, e.g. with a dictionary."""
        wanted = max(guard.size_bytes, _COPIES * batch.nbytes)
        try:
            guard.resize(wanted)
        except MemoryCapExceeded as error:
            size = format_bytes(batch.nbytes)
            raise CapTooSmall(
                cap_bytes=error.cap_bytes,
                needed_bytes=error.cap_bytes + wanted - guard.size_bytes,
                because=f"a record batch of {self._source.name} needs {size}",
            ) from error


def infer_arrow_schema(source: ByteSource | Path) -> Schema:
    """Return the columns of an Arrow IPC file or stream."""
    source = open_source(source) if isinstance(source, Path) else source
    largest_batch(source)  # checks lengths: Arrow would trust a damaged one
    with _open(source) as (_, reader):
        return Schema.from_arrow(reader.schema)


def longest_texts(
    source: ByteSource, columns: frozenset[str], room_bytes: int, looked_max: int
) -> tuple[int, int]:
    """Return the bytes that the longest texts of all columns have together, and what was read.

    Args:
        source: the file.
        columns: names of the columns; those whose values are nested are left out.
        room_bytes: memory that may be used; a file with larger batches is left out.
        looked_max: read about this much.

    Raises:
        BadInput: the file is damaged.
    """
    from sennit_core.arrow_ipc import DAMAGE

    batch_bytes, _ = largest_batch(source)
    if _COPIES * batch_bytes > room_bytes:
        return 0, 0
    longest, looked = dict[str, int](), 0
    with _open(source, batch_bytes) as (_, reader):
        try:
            for batch in reader:
                looked += batch.nbytes
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if name in columns:
                        longest[name] = max(longest.get(name, 0), _longest_of(column))
                if looked >= looked_max:
                    break
        except DAMAGE as error:
            raise BadInput(source.name, reason=str(error)) from error
    return sum(longest.values()), looked


def _longest_of(column: Any) -> int:
    """Return the bytes of a column's longest text, 0 for values of other types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        return _longest_of(column.dictionary)
    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        column = column.cast(pa.large_binary())
    is_text = (
        pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
        or pa.types.is_binary(column.type)
        or pa.types.is_large_binary(column.type)
    )
    return (pc.max(pc.binary_length(column)).as_py() or 0) if is_text else 0


@contextmanager
def _open(
    source: ByteSource, batch_bytes_max: int | None = None
) -> Iterator[tuple[Any, ArrowReader]]:
    """Open either form: the open file, and the reader of its batches."""
    from emsqrt.io.range_file import open_for_arrow
    from sennit_core.arrow_ipc import open_arrow

    with (
        open_for_arrow(source) as file,
        open_arrow(file, source.name, batch_bytes_max=batch_bytes_max) as reader,
    ):
        yield file, reader
