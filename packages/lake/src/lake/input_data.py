"""Data that a Python program gives to a lake: the path of a file, or a table in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sennit_core.errors import NotFound, UsageError
from sennit_core.text import camel_case

if TYPE_CHECKING:
    from lake.objects.durable import NewFile
    from lake.storage import Storage

__all__ = ["InputFile", "open_input"]

InputFile = tuple[Path, str, dict[str, Any]]
"""A file, its name, and the options of its ingest in wire form."""

_BATCH_ROWS = 65_536


@contextmanager
def open_input(
    storage: Storage, table: str, data: object, options: dict[str, Any]
) -> Iterator[InputFile]:
    """Open data as a file to ingest, which lives until the context is left.

    Args:
        storage: Has the folder for temporary files.
        table: The dataset's name.
        data: Path of a file; a `pyarrow.Table`; or an object with `__arrow_c_stream__`, such as a
            data frame of pandas or polars (the Arrow PyCapsule interface).
        options: Ingest options in snake_case.

    Raises:
        NotFound: There is no such file.
        UsageError: It is neither.
    """
    wire = {camel_case(key): value for key, value in options.items()} | {"name": table}
    if isinstance(data, str | Path):
        path = Path(data)
        if not path.is_file():
            raise NotFound(kind="file", name=str(data), suggestion=None)
        yield path, path.name, wire
        return
    with storage.new_file(table, encrypt=wire.get("encrypt")) as file:
        _write_arrow(data, file)
        yield file.path, f"{table}.arrow", wire


def _write_arrow(data: Any, file: NewFile) -> None:
    import pyarrow as pa

    if not isinstance(data, pa.Table):
        if not hasattr(data, "__arrow_c_stream__"):
            raise UsageError(
                f"append needs a path or a pyarrow.Table, not {type(data).__name__}",
                hint="a data frame of pandas or polars will do, too",
            )
        data = pa.table(data)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema) as writer:
        for batch in data.to_batches(max_chunksize=_BATCH_ROWS):
            writer.write_batch(batch)
    file.write(sink.getvalue())
