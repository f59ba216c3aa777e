"""Rows that are sent along with a part of a query: the small side of a join, whose large side the receiver holds.

A request names the tables with their columns, and how its body is divided:

    body = Arrow IPC streams of the first table | those of the second table | …

The sender has checked that the receiver may have rows of all datasets that these come from. The receiver believes
nothing: the body is bounded, names and types are of few forms, an executor reads the streams as it reads rows of any
other origin, and the statement is checked as any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lake.peers.transport.messages import BODY_BYTES_MAX
from lake.sql.sent_columns import is_sendable
from sennit_core.errors import BadInput
from sennit_core.ids import new_id
from sennit_core.private_files import make_private_folder
from sennit_core.records import Record

__all__ = [
    "NOTHING_SENT",
    "SENT_BYTES_MAX",
    "SentColumn",
    "SentRows",
    "SentTable",
    "check_sent",
    "written_rows",
]

SENT_BYTES_MAX = BODY_BYTES_MAX
"""Of all tables of a request, as Arrow IPC streams and after decompression: what one frame carries."""
_TABLES_MAX = 16
_STREAMS_MAX = 512
_COLUMNS_MAX = 400
_NAME = re.compile(r"__sennit_[a-z0-9_]{1,100}")


@dataclass(frozen=True, slots=True)
class SentColumn(Record):
    """A column.

    Args:
        name: Its name.
        type: DuckDB's name of its type.
    """

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class SentTable(Record):
    """A table whose rows come with a request.

    Args:
        name: As it is written in the SQL.
        columns: Its columns.
        streams: The length of each of its Arrow IPC streams, in bytes.
    """

    name: str
    columns: tuple[SentColumn, ...]
    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SentRows:
    """What is sent along with each request of a step.

    Args:
        tables: The tables.
        body: Their rows.
        origins: The ids of the datasets and snapshots that the rows come from.
    """

    tables: tuple[SentTable, ...] = ()
    body: bytes = b""
    origins: tuple[tuple[str, str], ...] = ()


NOTHING_SENT = SentRows()


def check_sent(sent: Sequence[SentTable], body: bytes, taken: Sequence[str]) -> None:
    """Refuse tables that no node of this version sends.

    Args:
        sent: The tables.
        body: Their rows.
        taken: Names of other tables of the request.

    Raises:
        BadInput: A member is out of range, or the body has another length.
    """
    names = {table.name for table in sent}
    lengths = [length for table in sent for length in table.streams]
    columns = sum(len(table.columns) for table in sent)
    is_named = len(names) == len(sent) and all(_NAME.fullmatch(name) for name in names)
    if not is_named or not names.isdisjoint(name.casefold() for name in taken):
        reason = "a table of its rows has another name than those of a plan"
    elif not all(is_sendable([(c.name, c.type) for c in table.columns]) for table in sent):
        reason = "a table of its rows has a column that is not sent along"
    elif len(sent) > _TABLES_MAX or columns > _COLUMNS_MAX or len(lengths) > _STREAMS_MAX:
        reason = f"it has {len(sent)} tables of rows, with {columns} columns"
    elif any(length <= 0 for length in lengths) or sum(lengths) != len(body):
        reason = f"its body has {len(body)} bytes"
    elif len(body) > SENT_BYTES_MAX:
        reason = f"its rows have {len(body)} bytes"
    else:
        return
    raise BadInput("a fragment", reason=reason)


@contextmanager
def written_rows(
    sent: Sequence[SentTable], body: bytes, staging: Path
) -> Iterator[Mapping[str, Any]]:
    """Write rows to files until the context is left; yield the members of an executor's request.

    Args:
        sent: The tables, which were checked.
        body: Their rows.
        staging: Folder for the files.
    """
    if not sent:
        yield {"engine": "duckdb"}
        return
    folder = make_private_folder(staging) if body else staging
    written: list[Path] = []
    tables, start = [], 0
    try:
        for table in sent:
            files = []
            for length in table.streams:
                place = folder / f"sent-{new_id()}.arrow"
                written.append(place)
                place.write_bytes(body[start : start + length])
                files.append(str(place))
                start += length
            columns = [[column.name, column.type] for column in table.columns]
            tables.append({"name": table.name, "columns": columns, "files": files})
        yield {"engine": "fragment", "sent": tables, "sentBytesMax": SENT_BYTES_MAX}
    finally:
        for place in written:
            place.unlink(missing_ok=True)
