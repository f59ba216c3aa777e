"""What happens to records that break the schema: the run fails, values become NULL, or they go.

Rejected records are kept as CSV with the columns file, line, byte, reason and record, the last as
it was written; a line or byte that nobody knows is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from emsqrt.io.locations import parse_location
from emsqrt.io.outputs import Output, open_output

POLICIES = ("fail", "null", "reject")
_HEADER = b"file,line,byte,reason,record\n"


class BadRows:
    """Counts what was set to NULL or left out of a source, and keeps the records left out.

    A context manager: the reject file appears when it is left in peace.

    Args:
        reject_file: where rejected records go; None keeps none.
        folder: where a relative path starts.
    """

    def __init__(self, reject_file: str | None = None, folder: Path | None = None) -> None:
        self.nulled_values = 0
        self.rejected_rows = 0
        self._place = None if reject_file is None else parse_location(reject_file, folder)
        self._stack = ExitStack()
        self._output: Output | None = None

    def reject(self, what: str, line: int | None, byte: int | None, fault: str, raw: bytes) -> None:
        """Count a record that is left out, and write it down.

        Args:
            what: the file.
            line: where the record starts, counted from 1.
            byte: where it starts, counted from 0.
            fault: what is wrong with it.
            raw: the record as it was, with or without its line end.
        """
        self.rejected_rows += 1
        if self._output is not None:
            fields = (what, line, byte, fault, raw.rstrip(b"\r\n"))
            self._output.write(_record(fields))

    def __enter__(self) -> Self:
        if self._place is not None:
            self._output = self._stack.enter_context(open_output(self._place))
            self._output.write(_HEADER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._output = None
        self._stack.__exit__(kind, error, trace)


def _record(fields: Sequence[str | bytes | int | None]) -> bytes:
    return b",".join(_field(value) for value in fields) + b"\n"


def _field(value: str | bytes | int | None) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int):
        return b"%d" % value
    data = value if isinstance(value, bytes) else value.encode()
    plain = data and not any(mark in data for mark in b',"\r\n')
    return data if plain else b'"' + data.replace(b'"', b'""') + b'"'
