"""Arrow IPC files and streams, one record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emsqrt.io.casting import BatchCaster
from emsqrt.io.sources import ByteSource, open_source
from emsqrt.memory import BudgetGuard, MemoryBudget
from sennit_core.errors import BadInput
from sennit_core.schema import Schema

_FILE_MAGIC = b"ARROW1"


class ArrowScan:
    """Reads one Arrow IPC file or stream; `bytes_done` moves while it is iterated.

    Args:
        source: the file; its first bytes say which of the two it is.
        schema: the wanted columns, in order, with their types.
        budget: asked for each batch once its size is known.
    """

    def __init__(self, source: ByteSource | Path, schema: Schema, budget: MemoryBudget) -> None:
        del budget  # a batch's size is known once it is read
        self._source = open_source(source) if isinstance(source, Path) else source
        self.need_bytes = 0
        self.need_because = "nothing is known of it before it is read"
        self.bytes_done = 0
        with _open(self._source) as (_, found, _):
            self._caster = BatchCaster(found, schema, self._source.name)

    def batches(self, guard: BudgetGuard) -> Iterator[Any]:
        """Yield the file's batches; `guard` grows with them."""
        import pyarrow as pa

        with _open(self._source) as (file, _, batches):
            try:
                for batch in batches:
                    guard.resize(max(guard.size_bytes, 2 * batch.nbytes))
                    self.bytes_done = file.tell()
                    yield self._caster.cast(batch)
            except (pa.ArrowInvalid, OSError) as error:
                raise BadInput(self._source.name, reason=str(error)) from error


def infer_arrow_schema(source: ByteSource | Path) -> Schema:
    """Return the columns of an Arrow IPC file or stream."""
    source = open_source(source) if isinstance(source, Path) else source
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
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(source.name, reason=f"this is not Arrow IPC: {error}") from error
        with reader:
            yield file, reader.schema, _batches(reader, is_file=is_file)


def _batches(reader: Any, *, is_file: bool) -> Iterator[Any]:
    if is_file:
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)
