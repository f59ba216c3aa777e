"""Arrow IPC files and streams, one record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emsqrt.io.arrow_blocks import largest_batch
from emsqrt.io.casting import BatchCaster
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput, CapTooSmall, MemoryCapExceeded
from sennit_core.schema import Schema
from sennit_core.units import format_bytes

_FILE_MAGIC = b"ARROW1"
_COPIES = 2
"""A batch as it is read, and what is made of it."""


class ArrowScan:
    """Reads one Arrow IPC file or stream; `bytes_done` moves while it is iterated.

    Args:
        source: the file; its first bytes say which of the two it is.
        schema: the wanted columns, in order, with their types.
        budget: `need_bytes` of it is to be admitted before reading.
    """

    def __init__(self, source: ByteSource | Path, schema: Schema, budget: MemoryBudget) -> None:
        del budget  # batches come as large as they are
        self._source = open_source(source) if isinstance(source, Path) else source
        batch_bytes, number = largest_batch(self._source)
        self.need_bytes = _COPIES * batch_bytes
        self.need_because = (
            f"record batch {number} of {self._source.name} takes {format_bytes(batch_bytes)}"
        )
        self.bytes_done = 0
        with _open(self._source) as (_, found, _):
            self._caster = BatchCaster(found, schema, self._source.name)

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` grows with them."""
        with _open(self._source) as (file, _, batches):
            try:
                for batch in batches:
                    batch.validate(full=True)  # a damaged offset would lead anywhere
                    self._hold(batch, guard)
                    self.bytes_done = file.tell()
                    yield self._caster.cast(batch)
            except _damage() as error:
                raise BadInput(self._source.name, reason=str(error)) from error

    def _hold(self, batch: Any, guard: BudgetGuard) -> None:
        """Make room for a batch that takes more than its head says, with a dictionary perhaps."""
        wanted = max(guard.size_bytes, _COPIES * batch.nbytes)
        try:
            guard.resize(wanted)
        except MemoryCapExceeded as error:
            taken = format_bytes(batch.nbytes)
            raise CapTooSmall(
                cap_bytes=error.cap_bytes,
                needed_bytes=error.cap_bytes + wanted - guard.size_bytes,
                because=f"a record batch of {self._source.name} takes {taken}",
            ) from error


def infer_arrow_schema(source: ByteSource | Path) -> Schema:
    """Return the columns of an Arrow IPC file or stream."""
    source = open_source(source) if isinstance(source, Path) else source
    largest_batch(source)  # a damaged length would be believed
    with _open(source) as (_, found, _):
        return Schema.from_arrow(found)


@contextmanager
def _open(source: ByteSource) -> Iterator[tuple[Any, Any, Iterator[Any]]]:
    """Open either form: the open file, the schema, and an iterator over the batches."""
    import pyarrow as pa

    from emsqrt.io.range_file import open_for_arrow

    with open_for_arrow(source) as file:
        is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        file.seek(0)
        try:
            reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
        except _damage() as error:
            raise BadInput(source.name, reason=f"this is not Arrow IPC: {error}") from error
        with reader:
            try:
                yield file, reader.schema, _batches(reader, is_file=is_file)
            except UnicodeDecodeError as error:
                reason = "a name in its schema is not UTF-8"
                raise BadInput(source.name, reason=reason) from error


def _damage() -> tuple[type[Exception], ...]:
    """Return what Arrow raises for files that are none."""
    import pyarrow as pa

    return (
        pa.ArrowInvalid,
        pa.ArrowIndexError,
        pa.ArrowKeyError,
        pa.ArrowNotImplementedError,
        pa.ArrowSerializationError,
        pa.ArrowTypeError,
        OSError,
    )


def _batches(reader: Any, *, is_file: bool) -> Iterator[Any]:
    if is_file:
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)
