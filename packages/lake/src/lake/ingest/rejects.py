"""Rows that do not fit, which the option `onBadRow: skip` leaves out and keeps in a reject file.

The file is JSON Lines, in the order of the rows: `line`, `byteOffset`, `reason` and `text`, the record as
it is in the source. It keeps the first rows up to a number and a size; the rest are counted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lake.objects.durable import storage_errors
from sennit_core.errors import BadInput
from sennit_core.units import MIB

__all__ = ["Rejects"]

_KEPT_MAX = 10_000
_KEPT_BYTES_MAX = 16 * MIB
_TEXT_MAX = 64 << 10
_COUNT_MAX = 1_000_000
"""More bad rows are a wrong delimiter or type. It also limits the time, as bad rows are slow."""


class Rejects:
    """The rejected rows of one file.

    Args:
        what: The file's name, for errors.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        # By source offset: a row of a range that is read again is rejected again.
        self._offsets: set[int] = set()
        self._rows: list[tuple[int, bytes]] = []
        self._bytes = 0

    def add(self, line: int, offset: int, text: str, reason: str) -> None:
        """Reject a row.

        Args:
            line: Line of its first byte.
            offset: Source offset of its first byte.
            text: The record.
            reason: Why it does not fit.

        Raises:
            BadInput: There are too many.
        """
        if offset in self._offsets:
            return
        self._offsets.add(offset)
        if len(self._offsets) > _COUNT_MAX:
            raise BadInput(
                what=self._what,
                line=line,
                byte_offset=offset,
                reason=f"more than {_COUNT_MAX:,} rows do not fit; the last one: {reason}",
                hint="check the delimiter, and the types of the option columns",
            )
        if len(self._rows) >= _KEPT_MAX or self._bytes >= _KEPT_BYTES_MAX:
            return
        row: dict[str, Any] = {"line": line, "byteOffset": offset, "reason": reason}
        if len(text) > _TEXT_MAX:
            row["cut"] = len(text)
        row["text"] = text[:_TEXT_MAX]
        encoded = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._rows.append((offset, encoded))
        self._bytes += len(encoded)

    def __len__(self) -> int:
        return len(self._offsets)

    def write(self, path: Path) -> dict[str, Any]:
        """Write the reject file; return `file`, `count` and `kept` for the worker's response."""
        with storage_errors(path, self._bytes), path.open("xb") as file:
            for _, row in sorted(self._rows):
                file.write(row)
        return {"file": str(path), "count": len(self._offsets), "kept": len(self._rows)}
