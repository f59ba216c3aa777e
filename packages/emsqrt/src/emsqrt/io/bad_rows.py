"""Policies for records that violate the schema: fail, set values to NULL, or reject the record.

Rejected records are written as CSV with the columns file, line, byte, reason and record, which is
the record as it was in the file; an unknown line or byte is empty.
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
    """Counts values set to NULL and rejected records, and writes the rejected records to a file.

    A context manager: the reject file appears when it is left without an error.

    Args:
        reject_file: the file for rejected records; None discards them.
        folder: the folder of a relative path.
    """

    def __init__(self, reject_file: str | None = None, folder: Path | None = None) -> None:
        self.nulled_values = 0
        self.rejected_rows = 0
        self._place = None if reject_file is None else parse_location(reject_file, folder)
        self._stack = ExitStack()
        self._output: Output | None = None

    def reject(self, what: str, line: int | None, byte: int | None, fault: str, raw: bytes) -> None:
        """Count a rejected record, and write it to the reject file.

        Args:
            what: the file.
            line: the line where the record starts, counted from 1.
            byte: the byte where it starts, counted from 0.
            fault: the error in it.
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
