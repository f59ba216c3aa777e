"""A cursor over typed records: seek, then get fields by name."""

from __future__ import annotations

from strand import _native

__all__ = ["RecordCursor"]


class RecordCursor(_native.Cursor):
    """Points at one record of a ring; allocate it once, then seek from record to record.

    Fields are read by `get`, by `cursor["name"]`, or by the getter of their type, which raises for
    another type. Strings and JSON are decoded once for the record under the cursor. `bytes` and
    array fields are read-only views into the ring, valid until the record is acknowledged: copy
    what you keep. After the view is closed, every call raises Closed.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} seq={self.seq}>"
