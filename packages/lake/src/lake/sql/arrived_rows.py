"""Rows that another node has computed. Step `arrived` of executors sends them in the format of a request.

They are checked first, as a fault in data of another node costs this executor alone. No engine reads them,
so they keep the types that they have.

A compressed batch can be thousands of times larger than what was received, so one that does not fit is
refused by the lengths that it names, before it is decompressed.

Request: `file` (an Arrow IPC stream), `format`, `maxRows`. Response: `rows`, `truncated`, `columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from emsqrt.io.formats import open_format, type_name
from lake.sql.types import quoted
from sennit_core.arrow_ipc import open_arrow
from sennit_core.errors import BadInput, Corrupt, TooLarge

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext
    from sennit_core.arrow_ipc import ArrowReader

__all__ = ["insert_arrived", "open_arrived", "send_arrived"]

_ARRIVED = "__sennit_arrived"
_OTHER_COLUMNS = (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError)
"""DuckDB's errors of an INSERT of rows with other columns; not those of memory, or an interrupt."""
_SHARE_OF_CAP = 4
"""Of the memory cap, what a batch may have: its engine needs the rest."""


@contextmanager
def open_arrived(file: Path, what: str, context: EntryContext) -> Iterator[ArrowReader]:
    """Open rows that another node has sent.

    Args:
        file: An Arrow IPC stream.
        what: The rows, for errors.
        context: Of the step that reads them.

    Raises:
        Corrupt: They are not what they should be.
        TooLarge: A batch has too many bytes after decompression.
    """
    most = context.cap_bytes // _SHARE_OF_CAP
    try:
        with (
            pa.OSFile(str(file)) as source,
            open_arrow(source, what, batch_bytes_max=most) as reader,
        ):
            yield reader
    except BadInput as error:
        raise Corrupt(what, expected="Arrow data", found=str(error)[:200]) from error
    except TooLarge as error:
        error.hint = "ask for fewer or shorter columns, or start the node with more --memory"
        raise


def insert_arrived(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    files: Iterable[Path],
    what: str,
    context: EntryContext,
    bytes_max: int | None = None,
) -> int:
    """Insert rows of another node into a table, which has the right types; return their size.

    Args:
        connection: Of the table.
        table: Its name.
        files: Arrow IPC streams.
        what: The rows, for errors.
        context: Of the step that reads them.
        bytes_max: The most that they have together after decompression; None for no limit.

    Raises:
        Corrupt: They are not what they should be.
        TooLarge: A batch, or all of them together, have too many bytes after decompression.
    """
    size = 0
    for file in files:
        with open_arrived(file, what, context) as reader:
            for batch in reader:
                context.check()
                size += batch.nbytes
                if bytes_max is not None and size > bytes_max:
                    raise TooLarge(what, bytes_max, size)
                connection.register(_ARRIVED, pa.Table.from_batches([batch]))
                try:
                    connection.execute(f"INSERT INTO {quoted(table)} FROM {_ARRIVED}")
                except _OTHER_COLUMNS as error:
                    found = str(error).splitlines()[0][:200]
                    raise Corrupt(what, expected="the columns of the table", found=found) from error
                finally:
                    connection.unregister(_ARRIVED)
    return size


def send_arrived(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Send the rows.

    Raises:
        Corrupt: They are not what they should be.
        TooLarge: A batch has too many bytes after decompression.
    """
    what = "the rows that another node has returned"
    with (
        open_arrived(Path(request["file"]), what, context) as reader,
        open_format(
            request["format"], reader.schema, context.emit, max_rows=request["maxRows"]
        ) as writer,
    ):
        for batch in reader:
            context.check()
            writer.write(batch)
    return {
        "rows": writer.rows,
        "truncated": writer.truncated,
        "columns": [{"name": each.name, "type": type_name(each)} for each in writer.schema],
        "inputs": [],
    }
