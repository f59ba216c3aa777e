"""Fast path: parse CSV blocks to typed columns with EM-√'s parser, once the kinds are known.

It parses only unambiguous forms: integers in canonical form, digits with a fraction and an
exponent, ISO 8601 dates and times, and the exact words for NULL. A column with any other text is
read as text from there on, until its kind changes, and `lake.ingest.columns` parses it. So this
path is faster, but its results are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from emsqrt._kernel import CsvParser, RecordFault
from emsqrt.io.csv_parser import batch_over
from lake.ingest.columns import KINDS, NULL_WORDS

__all__ = ["DirectReader"]

_TYPES = {
    "int": "Int64",
    "float": "Float64",
    "date": "Date",
    "timestamp": "Timestamp(us)",
    "timestamp-utc": "Timestamp(us,UTC)",
}
_TEXT = "Utf8"
# A block that needs more than this is parsed in several pieces (`read`).
_MEMORY_PER_BYTE = 3
_MEMORY_BYTES_MIN = 1 << 16


class DirectReader:
    """Parses blocks of whole records.

    Args:
        names: The column names.
        delimiter: The field delimiter.
        wanted: Indexes of the columns to read, in their order; None for all.
    """

    def __init__(
        self, names: Sequence[str], delimiter: str, wanted: Sequence[int] | None = None
    ) -> None:
        self._names = names
        self._delimiter = delimiter
        self._wanted = range(len(names)) if wanted is None else wanted
        self._texts: set[tuple[int, str]] = (
            set()
        )  # columns with other forms, which are read as text

    def is_typed(self, index: int, kind: str) -> bool:
        """Whether `read` returns typed values for a column; otherwise it returns text."""
        return kind in _TYPES and (index, kind) not in self._texts

    def read(self, data: bytes, kinds: Sequence[str]) -> pa.RecordBatch | None:
        """Return the block's wanted columns, or None if its records are malformed.

        Args:
            data: Whole records in UTF-8.
            kinds: Keys of `KINDS`, one per column of the file.
        """
        pieces: list[pa.RecordBatch] = []
        start = 0
        while start < len(data):
            memory = pa.allocate_buffer(_MEMORY_PER_BYTE * (len(data) - start) + _MEMORY_BYTES_MIN)
            parser = self._parser(memory, kinds)
            try:
                columns, start = parser.parse(data, start)
            except RecordFault as fault:
                if fault.reason != "value":
                    return None
                # From the block's beginning, as all of its pieces must have the same types.
                self._texts.add((fault.field, kinds[fault.field]))
                pieces, start = [], 0
                continue
            pieces.append(batch_over(columns, self._schema(kinds), memory))
            parser.release()
        if len(pieces) == 1:
            return pieces[0]
        return pa.concat_batches(pieces) if pieces else None

    def _parser(self, memory: pa.Buffer, kinds: Sequence[str]) -> CsvParser:
        types = [_TYPES[kinds[i]] if self.is_typed(i, kinds[i]) else _TEXT for i in self._wanted]
        return CsvParser(
            memory,
            field_count=len(self._names),
            columns=list(zip(self._wanted, types, strict=True)),
            delimiter=self._delimiter,
            null_values=NULL_WORDS,
            # Refuse text that a value could not be printed back to, as the kinds do.
            exact=True,
        )

    def _schema(self, kinds: Sequence[str]) -> pa.Schema:
        return pa.schema(
            pa.field(
                self._names[index],
                KINDS[kinds[index]].type if self.is_typed(index, kinds[index]) else pa.string(),
            )
            for index in self._wanted
        )
