"""The sinks of text: a CSV file that appears when complete, or standard output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from emsqrt.io.locations import Location
from emsqrt.io.outputs import Output, codec_by_name, open_output
from emsqrt.text_engine.text import Block
from sennit_core.schema import Schema

_QUOTED = re.compile(r'[,"\r\n]')


def header_line(names: Sequence[str]) -> bytes:
    """Return the header in the engine's own dialect: quotes only where they are needed."""
    fields = (
        '"' + name.replace('"', '""') + '"' if not name or _QUOTED.search(name) else name
        for name in names
    )
    return (",".join(fields) + "\n").encode()


class CsvTextSink:
    """Writes a header and blocks of records, or lines of JSON.

    Args:
        place: a file, or standard output.
        schema: the columns that will be written.
        header: whether the columns' names are written first.
    """

    def __init__(self, place: Location, schema: Schema, *, header: bool = True) -> None:
        self.rows = 0
        self.place = place
        self._header = header_line(schema.names) if header else b""
        self._stack = ExitStack()

    @property
    def bytes(self) -> int:
        """Bytes written to the file."""
        return self._output.bytes

    def __enter__(self) -> Self:
        self._output: Output = self._stack.enter_context(
            open_output(self.place, codec_by_name(self.place))
        )
        # A file is not visible before its end, so its header can be written at once.
        if not self.place.is_standard:
            self._write_header()
        return self

    def write(self, block: Block) -> None:
        """Append records, the last one with its line end."""
        self._write_header()
        self.rows += block.rows
        self._output.write(block.data)
        # Only the last record of a stream may lack its line end (`Block`); another stream may
        # follow it.
        if len(block.data) and block.data[-1] not in b"\r\n":
            self._output.write(b"\n")

    def _write_header(self) -> None:
        """Write the header, once; on standard output not before the first row, or the end.

        So a run that is refused later has printed nothing.
        """
        header, self._header = self._header, b""
        if header:
            self._output.write(header)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._write_header()
        self._stack.__exit__(*error)  # type: ignore[arg-type]
